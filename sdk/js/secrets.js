// Secrets of the host, as far as the operator grants them: used without their text entering the module.

import { open } from "aegis:module/secrets@1.0.0";

import { call } from "./refusal.js";

/** Opens a secret for as long as `work` uses it: an instance has few handles, and a secret may be another next time. */
export function use(name, work) {
  const handle = call(() => open(name));
  try {
    return work(handle);
  } finally {
    handle[Symbol.dispose]();
  }
}

/** The text of secrets, which needs a grant of its own; what the host refuses is thrown as a `Refusal`. */
export const secrets = {
  reveal: (name) => use(name, (handle) => call(() => handle.reveal())),
};
