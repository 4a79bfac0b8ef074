// What a module says about itself, from the plain object that its author writes.

import { aclOf, allowOf } from "./access.js";
import { json } from "./json.js";

const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
const flags = (names = []) => Object.fromEntries(names.map((name) => [camel(name), true]));

/** Hooks by the names that authors give them. */
const HOOKS = { create: "on-create", validate: "validate", update: "on-update", remove: "on-delete", load: "on-load" };

/** The key of a route: method and path. */
const ROUTE = /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\/\S*)$/;

const field = ([name, { kind = "any", rules, default: value, schema }]) => ({
  name,
  kind,
  rules: flags(rules),
  defaultValue: json(value),
  schema: json(schema),
});

const command = ([name, { description, allow, arguments: schema, saves = false, cpuBound = false }]) => ({
  name,
  description,
  allow: allowOf(allow, `commands.${name}`),
  argumentSchema: json(schema),
  saves,
  cpuBound,
});

const subscription = (event) => ({
  event,
  queueGroup: undefined,
  orderKey: undefined,
  maxInFlight: 1,
  durable: true,
});

/** A route, from its key such as `GET /{id}/label`, and its function or an object with more. */
function route([key, { public: isPublic = false, allow, cpuBound = false, openapi }]) {
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
  const { hooks = {}, mixins = [], datasource } = definition;
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
    hooks: flags(Object.keys(HOOKS).filter((name) => hooks[name]).map((name) => HOOKS[name])),
    mixins: mixins.map(({ name, ...options }) => ({ name, on: {}, options: JSON.stringify(options) })),
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
    subscriptions: Object.keys(definition.events ?? {}).map(subscription),
    routes: Object.entries(definition.routes ?? {}).map(route),
    preload: 0,
    extensions: [],
  };
}
