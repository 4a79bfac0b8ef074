// A tour of the contract, in JavaScript: the same as in the other languages of this folder, but with hooks over copies of
// documents.

import {
  Refusal, documents, elapsed, generation, http, isCancelled, log, metrics, model, newId, now, randomBytes, refuse, secrets,
  setting, timeLeft,
} from "aegis-module";

/** What an instance remembers. */
const memory = { greeting: "", calls: 0 };

function greet({ greeting }) {
  if (greeting === "none") throw refuse("unavailable", "there is no greeting", undefined, { transient: true });
  memory.greeting = greeting;
}

const hook = {
  create: (input) => {
    const { secret, ...tour } = input;
    if (typeof tour.name === "string") tour.name = tour.name.trim();
    tour.price ??= 1.5;
    tour.stops = [{ at: "start" }];
    metrics.add("planned", 1, { kind: tour.kind ?? "walk" });
    metrics.observe("price", tour.price);
    return tour;
  },
  validate: (after, before) => {
    if (after.name === "") throw refuse("invalid", "a tour has a name", { name: "is empty" });
    if (before && after.stops.length < before.stops.length) {
      throw refuse("conflict", `it has ${Object.keys(before).length} properties`);
    }
  },
  update: ({ data, revision }, changes) => {
    const tour = { ...data };
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) delete tour[name];
      else tour[name] = value;
    }
    tour.stops = [...tour.stops, { at: `revision ${revision}` }];
    return tour;
  },
  remove: ({ id, data }) => {
    if (data.price > 100) throw refuse("conflict", `${id} is too dear to lose`);
  },
  load: ({ data }) => ({ ...data, grade: data.price > 100 ? "dear" : "fair" }),
};

const api = (path) => `${setting("/api")}${path}`;

function pay(_, tour) {
  const request = { method: "POST", url: api("/charge"), headers: { "x-tour": tour.id }, body: { amount: tour.data.price } };
  const response = http.sendAuthorized(request, "guide");
  return { status: response.status, type: response.headers["content-type"], answer: response.json() };
}

/** The code of a refusal, or what is answered. */
function codeOf(ask) {
  try {
    return ask();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return error.code;
  }
}

function ask() {
  const requests = [{ url: api("/a"), timeoutMs: 5000 }, { url: "http://127.0.0.1:1/" }, { url: api("/b") }];
  const told = (one) => (one instanceof Refusal ? one.code : one.text());
  const large = { url: api("/a"), maxResponseBytes: 1 };
  return [http.sendAll(requests).map(told), codeOf(() => http.send(large)), codeOf(() => secrets.reveal("guide"))];
}

function split(_, tour) {
  const written = documents.writeAll("tour", [
    { create: { id: `${tour.id}1`, name: "first half", price: 2 } },
    { create: { id: `${tour.id}2`, name: "second half", price: 3 } },
    { patch: { split: true }, id: tour.id, revision: tour.revision },
  ]);
  const failed = codeOf(() => documents.writeAll("tour", [{ create: { name: "x" } }, { remove: "nothing" }]));
  const found = documents.findMany("tour", [`${tour.id}2`, "nothing", tour.id]);
  const sum = documents.aggregate("tour", [{ $group: { _id: null, price: { $sum: "$price" } } }]);
  return { revisions: written.map(({ revision }) => revision), failed, found: found.map((one) => one?.data.name ?? null), sum };
}

function facts() {
  const before = elapsed();
  const isRecent = now() > new Date("2024-01-01");
  return {
    id: newId().length, bytes: randomBytes(5).length, isRecent, grows: elapsed() >= before, hasTime: timeLeft() > 0,
    isCancelled: isCancelled(), generation: generation(), errors: log.isEnabled("error"),
  };
}

function count() {
  memory.calls += 1;
  return { ...memory };
}

const paths = {
  "GET /{id}/label": ({ params, query }, context) => {
    const tour = documents.find("tour", params.id);
    if (!tour) throw refuse("not-found", `there is no tour ${params.id}`);
    return { headers: { "x-origin": context.origin }, body: `${tour.data.name} (${query})` };
  },
  "POST //tour/echo": {
    openapi: { summary: "Says it again" },
    run: (request) => ({ status: 201, body: { said: request.json(), by: request.headers.constructor ?? null, at: request.path } }),
  },
};

export const {
  identity, describeModel, hooks, commands, routes, eventHandlers, lifecycle, handover,
} = model({
  name: "tour",
  fields: { name: { kind: "text", rules: ["required"] }, price: { kind: "decimal" } },
  hooks: hook,
  commands: {
    pay: { run: pay }, ask: { run: ask }, split: { run: split }, facts: { run: facts }, count: { run: count },
  },
  routes: paths,
  events: {
    CREATETOUR: ({ name, key, data }) => {
      if (data.model.listens) documents.patch("tour", key, { heard: name });
    },
  },
  begin: greet,
  reconfigure: (settings) => {
    log.info("other settings", { greeting: settings.greeting });
    greet(settings);
  },
  drain: () => log.info("the tour ends", { calls: memory.calls }),
  health: () => {
    if (memory.greeting === "ill") throw refuse("unavailable", "the guide is ill");
  },
  handover: {
    save: () => ({ calls: memory.calls }),
    restore: ({ calls }, fromVersion) => {
      memory.calls = calls;
      log.info("taken over", { fromVersion });
    },
  },
});
