/**
 * Modules for Ægis in TypeScript. See docs/modules.md.
 *
 * Functions of a module are synchronous, and so is what they ask of the host: one that returns a promise has failed, whatever
 * becomes of the promise.
 */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Document = { [name: string]: any };

export type RefusalCode =
  | "invalid" | "not-found" | "conflict" | "denied" | "timeout" | "unavailable"
  | "circuit-open" | "too-large" | "cancelled" | "unsupported" | "internal";

/** A no: the answer of a module that is well. The host passes it on to the client. */
export class Refusal {
  readonly code: RefusalCode;
  readonly message: string;
  readonly details?: Json;
  /** Worth another attempt. */
  readonly transient: boolean;
}
/** Refuses: `throw refuse("conflict", "it is closed")`. Details are reasons by field. */
export function refuse(
  code: RefusalCode, message: string, details?: Json, options?: { transient?: boolean },
): Refusal;

/** A stored document. */
export interface Entity {
  id: string;
  model: string;
  revision: number;
  created: Date;
  updated: Date;
  data: Document;
}

/** The caller, where the host asks who calls (`[auth]`). */
export interface Principal {
  subject: string;
  roles: string[];
  /** All that the token says, as JSON text. */
  claims?: string;
}

/** Who asked, and for how long the answer is still wanted. */
export interface Context {
  requestId: string;
  principal?: Principal;
  origin: string;
  budgetMs: number;
  attempt: number;
  idempotencyKey?: string;
}

export interface Field {
  kind?: "text" | "integer" | "decimal" | "boolean" | "timestamp" | "object" | "array" | "bytes" | "any";
  rules?: ("required" | "unique" | "immutable" | "indexed")[];
  default?: Json;
  /** JSON Schema of the value. */
  schema?: Json;
}

export interface Mixin {
  name: "require" | "freeze" | "unique" | "default" | "range" | "pattern";
  fields: string[];
  value?: Json;
  min?: number;
  max?: number;
  pattern?: string;
}

/** What can be done with documents. */
export type Right = "create" | "read" | "list-all" | "update" | "delete" | "command";
/** A rule about callers. What it denies is refused whatever others allow; a host without `[auth]` refuses the module. */
export type AccessRule = (
  /** Whoever has this role. */
  | { subject: "role"; name: string }
  /** Whoever's token has a claim with this value, or with it in a list. */
  | { subject: "claim"; name: `${string}=${string}` }
  /** Whoever has a token. */
  | { subject: "anyone" }
) & { allow?: Right[]; deny?: Right[] };

export interface Command {
  description?: string;
  /** Roles of which a caller needs one; whoever may update runs it when there are none. The host needs `[auth]` then. */
  allow?: string[];
  /** JSON Schema of the arguments. */
  arguments?: Json;
  /** The result replaces the document instead of only being answered. */
  saves?: boolean;
  /** It computes for long: it runs on threads of its own and has more time. */
  cpuBound?: boolean;
  run(args: any, target: Entity | undefined, context: Context): unknown;
}

export interface Hooks {
  /** Makes the document from what the client sent. */
  create?(input: Document, context: Context): Document;
  /** Has the last word on a new or changed document; throws a `Refusal` or returns nothing. */
  validate?(after: Document, before: Document | undefined, context: Context): void;
  /** Merges changes (`null` removes) into the document. */
  update?(current: Entity, changes: Document, context: Context): Document;
  /** May forbid a removal. */
  remove?(current: Entity, context: Context): void;
  /** Brings a stored document into the shape that this code knows, whenever it is read. */
  load?(stored: Entity, context: Context): Document;
}

/** What came over HTTP. */
export interface Message {
  /** By lower-case name; several of one name have commas in between. */
  headers: { [name: string]: string };
  body: Uint8Array;
  /** The body as text; throws a `Refusal` when it is no UTF-8. */
  text(): string;
  /** The body as JSON; throws a `Refusal` when it is none. */
  json(): any;
}
/** A text, bytes, or anything else as JSON; the `content-type` follows from it unless the headers have one. */
export type Body = Uint8Array | Json;
export type Headers = { [name: string]: string | string[] };

/** A request to a custom route. */
export interface RouteRequest extends Message {
  method: string;
  /** The pattern of the route. */
  route: string;
  /** As it was sent. */
  path: string;
  /** As it was sent, without the question mark. */
  query: string;
  /** The parts in braces, decoded. */
  params: { [name: string]: string };
}
/** What a custom route answers; 200 without a body unless it says otherwise. */
export type RouteResponse = { status?: number; headers?: Headers; body?: Body } | undefined | void;
type RouteHandler = (request: RouteRequest, context: Context) => RouteResponse;
export type Route = RouteHandler | {
  /** Callers need no token. */
  public?: boolean;
  /** Roles of which a caller needs one; not with `public`. The host needs `[auth]` then. */
  allow?: string[];
  /** It computes for long. */
  cpuBound?: boolean;
  /** For the description of the API. */
  openapi?: Json;
  run: RouteHandler;
};

/** A change that is committed. */
export interface ModelEvent {
  /** The same when it comes again. */
  id: string;
  /** `CREATEORDER`. */
  name: string;
  source: string;
  time: Date;
  /** Id of the document. */
  key?: string;
  data: any;
}

export interface Definition {
  name: string;
  /** The name with an "s" unless it says otherwise. */
  endpoint?: string;
  version?: string;
  domain?: string;
  description?: string;
  idField?: string;
  fields?: { [name: string]: Field };
  schema?: Json;
  /** Properties that are not declared are refused. */
  strict?: boolean;
  mixins?: Mixin[];
  hooks?: Hooks;
  commands?: { [name: string]: Command };
  /** Who may do what. As soon as there is a rule, what none allows is refused. */
  acl?: AccessRule[];
  /** Paths that the code answers, such as `"GET /{id}/label"`. Export `routes` when there are some. */
  routes?: { [methodAndPath: string]: Route };
  /**
   * Handlers of events, by name or with `*` at the end of how names begin; the first one that fits is called. Export
   * `eventHandlers` when there are some.
   */
  events?: { [name: string]: (event: ModelEvent, context: Context) => void };
  datasource?: { name?: "default" | "memory" | "file"; cacheEntries?: number };
  /** Name of the module, if it is not the model's. */
  module?: string;
  moduleVersion?: string;
  /** Called with the settings when an instance begins. */
  begin?(settings: any): void;
  /** Called with other settings while the instance goes on; `begin` unless it says otherwise. A `Refusal` replaces it. */
  reconfigure?(settings: any): void;
  /** Called when the instance ends, unless it failed or another one wants its room at once: release what is held. */
  drain?(): void;
  /** Throws a `Refusal` when the module is not well. */
  health?(): void;
  /** What the next version gets to know of what this one remembers. Export `handover` when there is something. */
  handover?: {
    /** The state, anything that JSON can say. */
    save(): Json;
    restore(state: any, fromVersion: string): void;
  };
}

/**
 * The exports of a module: `export const { identity, describeModel, hooks, commands, lifecycle } = model({ … })`. What is
 * not exported is not there for the host.
 */
export function model(definition: Definition): {
  identity: object;
  describeModel: object;
  hooks: object;
  commands: object;
  routes: object;
  eventHandlers: object;
  lifecycle: object;
  handover: object;
};

type Log = (message: string, values?: { [name: string]: unknown }) => void;
/** Lines in the host's log. */
export const log: {
  trace: Log; debug: Log; info: Log; warn: Log; error: Log;
  /** Whether lines of this level go to the log. */
  isEnabled(level: "trace" | "debug" | "info" | "warn" | "error"): boolean;
};
/** A setting of this module by JSON Pointer; `undefined` when it is not set. */
export function setting(pointer: string): Json | undefined;
/** Number of the generation that this module is part of. */
export function generation(): number;
/** The time. */
export function now(): Date;
/** Milliseconds of a clock that only grows, with fractions. */
export function elapsed(): number;
/** Milliseconds that this call may still take. */
export function timeLeft(): number;
/** Whether the caller went away, so that the answer is not wanted any more. */
export function isCancelled(): boolean;
/** A new UUID. */
export function newId(): string;
/** Bytes that nobody can guess, 65536 at most. */
export function randomBytes(count: number): Uint8Array;

export interface Query {
  filter?: Document;
  sort?: string[];
  limit?: number;
  cursor?: string;
  fields?: string[];
}

/** A write among others. */
export type Write =
  | { create: Document }
  | { patch: Document; id: string; revision?: number }
  | { replace: Document; id: string; revision?: number }
  | { remove: string; revision?: number };

/** Documents of models. What the host refuses is thrown as a `Refusal`. */
export const documents: {
  find(model: string, id: string): Entity | undefined;
  /** At most 1000, in the order of the ids. */
  findMany(model: string, ids: string[]): (Entity | undefined)[];
  search(model: string, query?: Query): { items: Entity[]; cursor?: string };
  /** What a pipeline, as in `__aggregate`, makes of the documents. */
  aggregate(model: string, pipeline: Json): any;
  create(model: string, data: Document): Entity;
  patch(model: string, id: string, changes: Document, revision?: number): Entity;
  replace(model: string, id: string, data: Document, revision?: number): Entity;
  remove(model: string, id: string, revision?: number): Entity;
  /** All of them or none; a refusal's message begins with the number of the write, from 0. */
  writeAll(model: string, writes: Write[]): Entity[];
};

/** A request to another system. */
export interface Request {
  /** `GET` unless it says otherwise. */
  method?: string;
  url: string;
  headers?: Headers;
  body?: Body;
  timeoutMs?: number;
  maxResponseBytes?: number;
}
export interface Response extends Message {
  status: number;
}
/** Requests to other systems. What the host refuses is thrown as a `Refusal`; any status is a response. */
export const http: {
  send(request: Request): Response;
  /** The host puts the secret of this name behind the scheme, `Bearer` unless it says otherwise, into `Authorization`. */
  sendAuthorized(request: Request, secret: string, scheme?: string): Response;
  /** At most 64, several at a time; the answers are in the order of the requests. */
  sendAll(requests: Request[]): (Response | Refusal)[];
};

/** The text of secrets, which needs the grant `secrets.reveal`. */
export const secrets: { reveal(name: string): string };

type Labels = { [name: string]: unknown };
/** Measurements of this module, on the host's `/metrics`. */
export const metrics: {
  /** Adds to a counter, 1 unless it says otherwise. */
  add(name: string, value?: number, labels?: Labels): void;
  /** Has a histogram observe a value. */
  observe(name: string, value: number, labels?: Labels): void;
};
