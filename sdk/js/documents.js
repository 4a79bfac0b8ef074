// Documents of models, this one and those that the operator grants.

import * as models from "aegis:module/models@1.0.0";

import { fromEntity } from "./entity.js";
import { call } from "./refusal.js";

/** A write as the contract says it. */
function operation(write) {
  const { id, revision } = write;
  if ("create" in write) return { tag: "create", val: JSON.stringify(write.create) };
  if ("patch" in write) return { tag: "patch", val: [id, JSON.stringify(write.patch), revision] };
  if ("replace" in write) return { tag: "replace", val: [id, JSON.stringify(write.replace), revision] };
  if ("remove" in write) return { tag: "delete", val: [write.remove, revision] };
  throw new TypeError(`found a write with ${Object.keys(write)}, expected create, patch, replace or remove`);
}

const write = (model, one) => call(() => fromEntity(models.write(model, operation(one))));

/** What is asked of the host about documents; what it refuses is thrown as a `Refusal`. */
export const documents = {
  find: (model, id) => call(() => fromEntity(models.find(model, id))),
  findMany: (model, ids) => call(() => Array.from(models.findMany(model, ids), fromEntity)),
  search: (model, query = {}) =>
    call(() => {
      const page = models.search(model, {
        filter: JSON.stringify(query.filter ?? {}),
        sort: query.sort ?? [],
        limit: query.limit ?? 100,
        cursor: query.cursor,
        fields: query.fields ?? [],
      });
      return { items: page.items.map(fromEntity), cursor: page.cursor ?? undefined };
    }),
  aggregate: (model, pipeline) => call(() => JSON.parse(models.aggregate(model, JSON.stringify(pipeline)))),
  create: (model, data) => write(model, { create: data }),
  patch: (model, id, changes, revision) => write(model, { patch: changes, id, revision }),
  replace: (model, id, data, revision) => write(model, { replace: data, id, revision }),
  remove: (model, id, revision) => write(model, { remove: id, revision }),
  writeAll: (model, writes) =>
    call(() => Array.from(models.writeBatch(model, writes.map(operation)), fromEntity)),
};
