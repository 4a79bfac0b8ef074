// Documents as modules see them.

/** A stored document; `undefined` when there is none. */
export const fromEntity = (entity) =>
  entity === undefined || entity === null
    ? undefined
    : {
        id: entity.id,
        model: entity.model,
        revision: Number(entity.revision),
        created: new Date(Number(entity.created)),
        updated: new Date(Number(entity.updated)),
        data: JSON.parse(entity.data),
      };
