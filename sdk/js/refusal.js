// A no, in both directions: what this module refuses, and what the host refuses to it.

import { write as writeLog } from "aegis:module/log@1.0.0";

import { parse } from "./json.js";

const CODES = [
  "invalid", "not-found", "conflict", "denied", "timeout", "unavailable",
  "circuit-open", "too-large", "cancelled", "unsupported", "internal",
];

/** A no: the answer of a module that is well. The host passes code, message and details on to the client. */
export class Refusal {
  constructor(code, message, details, { transient = false } = {}) {
    if (!CODES.includes(code)) {
      throw new TypeError(`found the code ${JSON.stringify(code)}, expected one of ${CODES.join(", ")}`);
    }
    if (typeof message !== "string") throw new TypeError(`found ${typeof message}, expected a text that says why`);
    this.code = code;
    this.message = message;
    this.details = details;
    this.transient = transient;
  }
}

/** Refuses: `throw refuse("conflict", "it is closed")`; `{ transient: true }` says that it is worth another attempt. */
export const refuse = (code, message, details, options) => new Refusal(code, message, details, options);

/** What the host refused. */
export const fromFault = (fault) =>
  new Refusal(fault.code, fault.message, parse(fault.details), { transient: fault.transient });

/** Calls the host; its no becomes a `Refusal`, which the module may catch. */
export function call(ask) {
  try {
    return ask();
  } catch (error) {
    const fault = error?.payload ?? error;
    if (typeof fault?.code !== "string") throw error;
    throw fromFault(fault);
  }
}

/**
 * Carries out the part of the module that has this name, and says its result as the host wants it; its `Refusal` becomes
 * an answer, anything else is a defect.
 */
export function answer(name, work, say = () => undefined) {
  try {
    const result = work();
    // Nobody would look at what becomes of it, so that a no in it would be a yes.
    if (typeof result?.then === "function") {
      throw new TypeError(`${name} returned a promise, expected a result: functions of a module are synchronous`);
    }
    // A no is one however it is said.
    if (result instanceof Refusal) throw result;
    return say(result);
  } catch (error) {
    throw error instanceof Refusal ? fault(error) : defect(error);
  }
}

/** A no as the contract says it. */
function fault({ code, message, details, transient }) {
  try {
    return { code, message, details: details === undefined ? undefined : JSON.stringify(details), transient };
  } catch (error) {
    return defect(error);
  }
}

/** What the contract calls a fault of the code itself. */
function defect(error) {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  writeLog("error", message, [["stack", error?.stack ?? ""]]);
  return { code: "internal", message: "the module has failed", details: undefined, transient: false };
}
