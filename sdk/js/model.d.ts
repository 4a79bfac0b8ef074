/** Modules for Ægis in TypeScript. See docs/modules.md. */

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
}
/** Refuses: `throw refuse("conflict", "it is closed")`. Details are reasons by field. */
export function refuse(code: RefusalCode, message: string, details?: Json): Refusal;

/** A stored document. */
export interface Entity {
  id: string;
  model: string;
  revision: number;
  created: Date;
  updated: Date;
  data: Document;
}

/** Who asked, and for how long the answer is still wanted. */
export interface Context {
  requestId: string;
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

export interface Command {
  description?: string;
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
  datasource?: { name?: "default" | "memory" | "file"; cacheEntries?: number };
  /** Name of the module, if it is not the model's. */
  module?: string;
  moduleVersion?: string;
  /** Called with the settings when an instance begins. */
  begin?(settings: Document): void;
}

/** The exports of a module: `export const { identity, describeModel, hooks, commands, lifecycle } = model({ … })`. */
export function model(definition: Definition): {
  identity: object;
  describeModel: object;
  hooks: object;
  commands: object;
  lifecycle: object;
};

type Log = (message: string, values?: { [name: string]: unknown }) => void;
/** Lines in the host's log. */
export const log: { trace: Log; debug: Log; info: Log; warn: Log; error: Log };
/** A setting of this module by JSON Pointer; `undefined` when it is not set. */
export function setting(pointer: string): Json | undefined;
/** Milliseconds that this call may still take. */
export function timeLeft(): number;
/** A new UUID. */
export function newId(): string;

export interface Query {
  filter?: Document;
  sort?: string[];
  limit?: number;
  cursor?: string;
  fields?: string[];
}

/** Documents of models. What the host refuses is thrown as a `Refusal`. */
export const documents: {
  find(model: string, id: string): Entity | undefined;
  search(model: string, query?: Query): { items: Entity[]; cursor?: string };
  create(model: string, data: Document): Entity;
  patch(model: string, id: string, changes: Document, revision?: number): Entity;
  replace(model: string, id: string, data: Document, revision?: number): Entity;
  remove(model: string, id: string, revision?: number): Entity;
};
