// A no, in both directions: what this module refuses, and what the host refuses to it.

import { write as writeLog } from "aegis:module/log@1.0.0";

import { parse } from "./json.js";

/** A no: the answer of a module that is well. The host passes code, message and details on to the client. */
export class Refusal {
  constructor(code, message, details, { transient = false } = {}) {
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

/** Carries out a part of the module; its `Refusal` becomes an answer, anything else is a defect. */
export function answer(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw defect(error);
    const details = error.details === undefined ? undefined : JSON.stringify(error.details);
    throw { code: error.code, message: error.message, details, transient: error.transient };
  }
}

/** What the contract calls a fault of the code itself. */
function defect(error) {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  writeLog("error", message, [["stack", error?.stack ?? ""]]);
  return { code: "internal", message: "the module has failed", details: undefined, transient: false };
}
