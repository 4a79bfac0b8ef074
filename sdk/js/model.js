// A model as a plain object, turned into what the contract wants. Bundled into every module by build.mjs.

import { fromEntity } from "./entity.js";
import { parse } from "./json.js";
import { fromMessage, toMessage } from "./message.js";
import { answer } from "./refusal.js";
import { identityOf, specOf } from "./spec.js";
import { toBytes, toJson } from "./text.js";

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

const hooks = (said) => ({
  onCreate: (context, input) => answer(() => JSON.stringify(said.create(JSON.parse(input), context))),
  validate: (context, before, after) =>
    answer(() => void said.validate(JSON.parse(after), parse(before), context)),
  onUpdate: (context, current, changes) =>
    answer(() => JSON.stringify(said.update(fromEntity(current), JSON.parse(changes), context))),
  onDelete: (context, current) => answer(() => void said.remove(fromEntity(current), context)),
  onLoad: (context, stored) => answer(() => JSON.stringify(said.load(fromEntity(stored), context))),
});

const commands = (said) => ({
  run: (context, name, target, args) =>
    answer(() => JSON.stringify(said[name].run(JSON.parse(args), fromEntity(target), context) ?? null)),
});

const routes = (said) => ({
  handle: (context, request) =>
    answer(() => {
      const { method, route, path, query, params } = request;
      const one = said[`${method.toUpperCase()} ${route}`];
      const run = typeof one === "function" ? one : one.run;
      const given = { method, route, path, query, params: Object.fromEntries(params), ...fromMessage(request) };
      const response = run(given, context) ?? {};
      return { status: response.status ?? 200, ...toMessage(response) };
    }),
});

/** Whether a subscription such as `CREATE*` is about an event. */
const isAbout = (pattern, name) =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

const eventHandlers = (said) => ({
  onEvent: (context, { id, name, source, time, key, data }) =>
    answer(() => {
      const event = { id, name, source, time: new Date(Number(time)), key: key ?? undefined, data: JSON.parse(data) };
      const [, handle] = Object.entries(said).find(([pattern]) => isAbout(pattern.toUpperCase(), name));
      handle(event, context);
    }),
});

const lifecycle = ({ begin, reconfigure = begin, drain, health }) => ({
  init: (config) => answer(() => void begin?.(JSON.parse(config))),
  reconfigure: (config) => answer(() => void reconfigure?.(JSON.parse(config))),
  drain: () => answer(() => void drain?.()),
  health: () => answer(() => void health?.()),
});

const handover = ({ save, restore }) => ({
  save: () => answer(() => toBytes(JSON.stringify(save() ?? null))),
  restore: (version, state) => answer(() => void restore(toJson(Uint8Array.from(state)), version)),
});
