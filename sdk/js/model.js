// A model as a plain object, turned into what the contract wants. Bundled into every module by build.mjs.

import { write as writeLog } from "aegis:module/log@1.0.0";
import { getJson } from "aegis:module/config@1.0.0";
import { remainingMs } from "aegis:module/clock@1.0.0";
import { uuid } from "aegis:module/random@1.0.0";
import { find, search, write } from "aegis:module/models@1.0.0";

/** A no: the answer of a module that is well. The host passes code, message and details on to the client. */
export class Refusal {
  constructor(code, message, details) {
    this.code = code;
    this.message = message;
    this.details = details;
  }
}

/** Refuses: `throw refuse("conflict", "it is closed")`. */
export const refuse = (code, message, details) => new Refusal(code, message, details);

/** Lines in the host's log. */
export const log = Object.fromEntries(
  ["trace", "debug", "info", "warn", "error"].map((level) => [
    level,
    (message, values = {}) =>
      writeLog(level, message, Object.entries(values).map(([name, value]) => [name, String(value)])),
  ]),
);

/** A setting of this module by JSON Pointer; `undefined` when it is not set. */
export const setting = (pointer) => parse(getJson(pointer));

/** Milliseconds that this call may still take. */
export const timeLeft = () => remainingMs();

/** A new UUID. */
export const newId = () => uuid();

/** Documents of models, this one and others. */
export const documents = {
  find: (model, id) => call(() => fromEntity(find(model, id))),
  search: (model, query = {}) =>
    call(() => {
      const page = search(model, {
        filter: JSON.stringify(query.filter ?? {}),
        sort: query.sort ?? [],
        limit: query.limit ?? 100,
        cursor: query.cursor,
        fields: query.fields ?? [],
      });
      return { items: page.items.map(fromEntity), cursor: page.cursor ?? undefined };
    }),
  create: (model, data) => write_(model, "create", JSON.stringify(data)),
  patch: (model, id, changes, revision) => write_(model, "patch", [id, JSON.stringify(changes), big(revision)]),
  replace: (model, id, data, revision) => write_(model, "replace", [id, JSON.stringify(data), big(revision)]),
  remove: (model, id, revision) => write_(model, "delete", [id, big(revision)]),
};

const write_ = (model, tag, val) => call(() => fromEntity(write(model, { tag, val })));
const big = (revision) => (revision === undefined ? undefined : BigInt(revision));
const parse = (text) => (text === undefined || text === null ? undefined : JSON.parse(text));

const fromEntity = (entity) =>
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

/** Calls the host; its no becomes a `Refusal`, which the module may catch. */
function call(ask) {
  try {
    return ask();
  } catch (error) {
    const fault = error?.payload ?? error;
    if (typeof fault?.code !== "string") throw error;
    throw new Refusal(fault.code, fault.message, parse(fault.details));
  }
}

/** Carries out a part of the module; its `Refusal` becomes an answer, anything else is a defect and traps. */
function answer(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw defect(error);
    const details = error.details === undefined ? undefined : JSON.stringify(error.details);
    throw { code: error.code, message: error.message, details, transient: false };
  }
}

/** What the contract calls a fault of the code itself. */
function defect(error) {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  log.error(message, { stack: error?.stack ?? "" });
  return { code: "internal", message: "the module has failed", details: undefined, transient: false };
}

const json = (value) => (value === undefined ? undefined : JSON.stringify(value));
const flags = (names = []) => Object.fromEntries(names.map((name) => [camel(name), true]));
const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());

const HOOKS = { create: "on-create", validate: "validate", update: "on-update", remove: "on-delete" };

/** Turns a model into the exports of a module: `export const { identity, … } = model({ … })`. */
export function model(definition) {
  const { hooks = {}, commands = {}, fields = {}, mixins = [], datasource } = definition;
  const spec = {
    name: definition.name,
    endpoint: definition.endpoint ?? `${definition.name}s`,
    version: definition.version ?? "1.0.0",
    domain: definition.domain,
    description: definition.description,
    idField: definition.idField,
    fields: Object.entries(fields).map(([name, field]) => ({
      name,
      kind: field.kind ?? "any",
      rules: flags(field.rules),
      defaultValue: json(field.default),
      schema: json(field.schema),
    })),
    schema: json(definition.schema),
    strict: definition.strict ?? false,
    hooks: flags(Object.keys(HOOKS).filter((name) => hooks[name]).map((name) => HOOKS[name])),
    mixins: mixins.map(({ name, ...options }) => ({ name, on: {}, options: JSON.stringify(options) })),
    ports: [],
    relations: [],
    commands: Object.entries(commands).map(([name, command]) => ({
      name,
      description: command.description,
      allow: [],
      argumentSchema: json(command.arguments),
      saves: command.saves ?? false,
      cpuBound: command.cpuBound ?? false,
    })),
    acl: [],
    serializers: [],
    datasource: datasource && {
      name: datasource.name ?? "default",
      cacheEntries: datasource.cacheEntries,
      cacheBytes: undefined,
      writeBehind: false,
      options: undefined,
    },
    subscriptions: [],
    routes: [],
    preload: 0,
    extensions: [],
  };
  const info = {
    name: definition.module ?? definition.name,
    version: definition.moduleVersion ?? spec.version,
    builtWith: "aegis-module (JavaScript)",
  };
  return {
    identity: { info: () => info },
    describeModel: { describe: () => spec },
    hooks: {
      onCreate: (context, input) =>
        answer(() => JSON.stringify(hooks.create(JSON.parse(input), context))),
      validate: (context, before, after) =>
        answer(() => void hooks.validate(JSON.parse(after), parse(before), context)),
      onUpdate: (context, current, changes) =>
        answer(() => JSON.stringify(hooks.update(fromEntity(current), JSON.parse(changes), context))),
      onDelete: (context, current) => answer(() => void hooks.remove(fromEntity(current), context)),
      onLoad: (context, stored) => stored.data,
    },
    commands: {
      run: (context, name, target, args) =>
        answer(() => {
          const result = commands[name].run(JSON.parse(args), fromEntity(target), context);
          return JSON.stringify(result ?? null);
        }),
    },
    lifecycle: {
      init: (config) => answer(() => void definition.begin?.(JSON.parse(config))),
      reconfigure: (config) => answer(() => void definition.begin?.(JSON.parse(config))),
      drain: () => {},
      health: () => {},
    },
  };
}
