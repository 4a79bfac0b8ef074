// Documents of models, this one and those that the operator grants.

import * as models from "aegis:module/models@1.0.0";

import { fromEntity } from "./entity.js";
import { call } from "./refusal.js";
import { count, parts, text, texts } from "./words.js";

/** What a write does; each does one of them. */
const VERBS = ["create", "patch", "replace", "remove"];
const WRITE = [...VERBS, "id", "revision"];
const QUERY = ["filter", "sort", "limit", "cursor", "fields"];

/** A write as the contract says it. A condition that is misspelt would be as if it were not there. */
function operation(write) {
  const { id, revision: seen } = parts(write, WRITE, "a write");
  const revision = count(seen, "a write: revision");
  const verbs = VERBS.filter((verb) => verb in write);
  if (verbs.length !== 1) {
    throw new TypeError(`found a write with ${Object.keys(write)}, expected one of ${VERBS.join(", ")}`);
  }
  const [verb] = verbs;
  if (verb === "create") return { tag: verb, val: JSON.stringify(write.create) };
  if (verb === "remove") return { tag: "delete", val: [text(write.remove, "remove"), revision] };
  return { tag: verb, val: [text(id, `${verb}: id`), JSON.stringify(write[verb]), revision] };
}

const write = (model, one) => {
  const said = operation(one);
  return call(() => fromEntity(models.write(model, said)));
};

/** What is asked of the host about documents; what it refuses is thrown as a `Refusal`. */
export const documents = {
  find: (model, id) => call(() => fromEntity(models.find(model, text(id, "find: id")))),
  findMany: (model, ids) =>
    call(() => Array.from(models.findMany(model, texts(ids, "findMany: ids")), fromEntity)),
  search: (model, query = {}) =>
    call(() => {
      const { filter, sort, limit, cursor, fields } = parts(query, QUERY, "search");
      const page = models.search(model, {
        filter: JSON.stringify(filter ?? {}),
        sort: texts(sort ?? [], "search: sort"),
        limit: count(limit, "search: limit") ?? 100,
        cursor,
        fields: texts(fields ?? [], "search: fields"),
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
