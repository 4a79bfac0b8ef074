// A model as a plain object, turned into what the contract wants. Bundled into every module by build.mjs.

import { fromEntity } from "./entity.js";
import { parse } from "./json.js";
import { fromMessage, toMessage } from "./message.js";
import { answer } from "./refusal.js";
import { identityOf, specOf } from "./spec.js";
import { toBytes, toJson } from "./text.js";
import { count, parts } from "./words.js";

/** Turns a model into the exports of a module: `export const { identity, … } = model({ … })`. */
export function model(definition) {
  const [info, spec] = [identityOf(definition), specOf(definition)];
  return {
    identity: { info: () => info },
    describeModel: { describe: () => spec },
    hooks: hooks(definition.hooks ?? {}),
    commands: commands(definition.commands ?? {}),
    routes: routes(definition.routes ?? {}),
    eventHandlers: eventHandlers(definition.events ?? {}),
    lifecycle: lifecycle(definition),
    handover: handover(definition.handover ?? {}),
  };
}

/** The JSON text of what may be nothing, or no JSON at all: the host says what it expected instead. */
const jsonOrNull = (value) => JSON.stringify(value) ?? "null";

const hooks = (said) => ({
  onCreate: (context, input) =>
    answer("hooks.create", () => said.create(JSON.parse(input), context), jsonOrNull),
  validate: (context, before, after) =>
    answer("hooks.validate", () => said.validate(JSON.parse(after), parse(before), context)),
  onUpdate: (context, current, changes) =>
    answer("hooks.update", () => said.update(fromEntity(current), JSON.parse(changes), context), jsonOrNull),
  onDelete: (context, current) => answer("hooks.remove", () => said.remove(fromEntity(current), context)),
  onLoad: (context, stored) => answer("hooks.load", () => said.load(fromEntity(stored), context), jsonOrNull),
});

const commands = (said) => ({
  run: (context, name, target, args) =>
    answer(`commands.${name}`, () => said[name].run(JSON.parse(args), fromEntity(target), context), jsonOrNull),
});

/** What a response may have: what there is to say, or all that an answer of another system has. */
const RESPONSE = ["status", "headers", "body", "text", "json"];

/** A response as the host wants it; 200 without a body unless it says otherwise. */
function toResponse(response) {
  const { status = 200, ...message } = parts(response ?? {}, RESPONSE, "a response");
  return { status: count(status, "a response: status") ?? 200, ...toMessage(message) };
}

const routes = (said) => ({
  handle: (context, request) => {
    const key = `${request.method.toUpperCase()} ${request.route}`;
    const run = () => {
      const { method, route, path, query, params } = request;
      const given = { method, route, path, query, params: Object.fromEntries(params), ...fromMessage(request) };
      const one = said[key];
      return (typeof one === "function" ? one : one.run)(given, context);
    };
    return answer(`routes.${key}`, run, toResponse);
  },
});

/** Whether a subscription such as `CREATE*` is about an event. */
const isAbout = (pattern, name) =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

const eventHandlers = (said) => ({
  onEvent: (context, { id, name, source, time, key, data }) =>
    answer(`events.${name}`, () => {
      const event = { id, name, source, time: new Date(Number(time)), key: key ?? undefined, data: JSON.parse(data) };
      const [, handle] = Object.entries(said).find(([pattern]) => isAbout(pattern.toUpperCase(), name));
      return handle(event, context);
    }),
});

const lifecycle = ({ begin, reconfigure = begin, drain, health }) => ({
  init: (config) => answer("begin", () => begin?.(JSON.parse(config))),
  reconfigure: (config) => answer("reconfigure", () => reconfigure?.(JSON.parse(config))),
  drain: () => answer("drain", () => drain?.()),
  health: () => answer("health", () => health?.()),
});

const handover = ({ save, restore }) => ({
  save: () => answer("handover.save", save, (state) => toBytes(jsonOrNull(state))),
  restore: (version, state) =>
    answer("handover.restore", () => restore(toJson(Uint8Array.from(state)), version)),
});
