// What a module says about itself, from the plain object that its author writes.

import { aclOf, allowOf } from "./access.js";
import { json } from "./json.js";
import { camel, code, parts, texts, word } from "./words.js";

const flags = (names = []) => Object.fromEntries(names.map((name) => [camel(name), true]));

/** Hooks by the names that authors give them. */
const HOOKS = { create: "on-create", validate: "validate", update: "on-update", remove: "on-delete", load: "on-load" };

/** What a definition may say, and its parts. */
const DEFINITION = [
  "name", "endpoint", "version", "domain", "description", "idField", "fields", "schema", "strict", "mixins", "hooks",
  "commands", "acl", "routes", "events", "datasource", "module", "moduleVersion", "begin", "reconfigure", "drain", "health",
  "handover",
];
const FIELD = ["kind", "rules", "default", "schema"];
const KINDS = ["text", "integer", "decimal", "boolean", "timestamp", "object", "array", "bytes", "any"];
const RULES = ["required", "unique", "immutable", "indexed", "encrypted", "hidden", "read-only"];
const MIXIN = ["name", "fields", "value", "min", "max", "pattern"];
const MIXINS = ["require", "freeze", "unique", "default", "range", "pattern"];
const COMMAND = ["description", "allow", "arguments", "saves", "cpuBound", "run"];
const ROUTE_PARTS = ["public", "allow", "cpuBound", "openapi", "run"];
const DATASOURCE = ["name", "cacheEntries"];
const HANDOVER = ["save", "restore"];
const LIFE = ["begin", "reconfigure", "drain", "health"];

/** The key of a route: method and path. */
const ROUTE = /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\/\S*)$/;

function field([name, said]) {
  const place = `fields.${name}`;
  const { kind = "any", rules = [], default: value, schema } = parts(said, FIELD, place);
  texts(rules, `${place}.rules`).forEach((rule) => word(rule, RULES, `${place}.rules`));
  return {
    name,
    kind: word(kind, KINDS, `${place}.kind`),
    rules: flags(rules),
    defaultValue: json(value),
    schema: json(schema),
  };
}

function mixin(said, number) {
  const { name, ...options } = parts(said, MIXIN, `mixins.${number}`);
  return { name: word(name, MIXINS, `mixins.${number}.name`), on: {}, options: JSON.stringify(options) };
}

function command([name, said]) {
  const place = `commands.${name}`;
  const { description, allow, arguments: schema, saves = false, cpuBound = false, run } = parts(said, COMMAND, place);
  code(run, `${place}.run`);
  return { name, description, allow: allowOf(allow, place), argumentSchema: json(schema), saves, cpuBound };
}

function subscription([event, handle]) {
  code(handle, `events.${event}`);
  return { event, queueGroup: undefined, orderKey: undefined, maxInFlight: 1, durable: true };
}

/** A route, from its key such as `GET /{id}/label`, and its function or an object with more. */
function route([key, said]) {
  const more = typeof said === "function" ? { run: said } : parts(said, ROUTE_PARTS, `routes.${key}`);
  code(more.run, `routes.${key}.run`);
  const { public: isPublic = false, allow, cpuBound = false, openapi } = more;
  const [, method, path] = ROUTE.exec(key) ?? [];
  if (path === undefined) throw new TypeError(`found the route "${key}", expected such as "GET /{id}/label"`);
  return {
    method: method.toLowerCase(),
    path,
    public: isPublic,
    allow: allowOf(allow, `routes.${key}`),
    cpuBound,
    openapi: json(openapi),
  };
}

/** The name and version of the module. */
export const identityOf = (definition) => ({
  name: definition.module ?? definition.name,
  version: definition.moduleVersion ?? definition.version ?? "1.0.0",
  builtWith: "aegis-module (JavaScript)",
});

/** The model as the contract says it. */
export function specOf(definition) {
  const { hooks = {}, mixins = [], datasource, handover = {} } = parts(definition, DEFINITION, "model");
  parts(hooks, Object.keys(HOOKS), "hooks");
  const offered = Object.keys(HOOKS).filter((name) => hooks[name]);
  offered.forEach((name) => code(hooks[name], `hooks.${name}`));
  LIFE.filter((name) => definition[name]).forEach((name) => code(definition[name], name));
  const halves = Object.keys(parts(handover, HANDOVER, "handover"));
  if (halves.length === 1) throw new TypeError(`handover: found only ${halves[0]}, expected ${HANDOVER.join(" and ")}`);
  halves.forEach((half) => code(handover[half], `handover.${half}`));
  if (datasource) parts(datasource, DATASOURCE, "datasource");
  return {
    name: definition.name,
    endpoint: definition.endpoint ?? `${definition.name}s`,
    version: definition.version ?? "1.0.0",
    domain: definition.domain,
    description: definition.description,
    idField: definition.idField,
    fields: Object.entries(definition.fields ?? {}).map(field),
    schema: json(definition.schema),
    strict: definition.strict ?? false,
    hooks: flags(offered.map((name) => HOOKS[name])),
    mixins: mixins.map(mixin),
    ports: [],
    relations: [],
    commands: Object.entries(definition.commands ?? {}).map(command),
    acl: aclOf(definition.acl),
    serializers: [],
    datasource: datasource && {
      name: datasource.name ?? "default",
      cacheEntries: datasource.cacheEntries,
      cacheBytes: undefined,
      writeBehind: false,
      options: undefined,
    },
    subscriptions: Object.entries(definition.events ?? {}).map(subscription),
    routes: Object.entries(definition.routes ?? {}).map(route),
    preload: 0,
    extensions: [],
  };
}
