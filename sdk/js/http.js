// Requests to other systems, as far as the operator grants them.

import * as host from "aegis:module/http@1.0.0";

import { fromMessage, toMessage } from "./message.js";
import { call, fromFault } from "./refusal.js";
import { use } from "./secrets.js";
import { parts, text } from "./words.js";

const REQUEST = ["method", "url", "headers", "body", "timeoutMs", "maxResponseBytes"];

const toRequest = (request) => {
  const { method = "GET", url, timeoutMs, maxResponseBytes } = parts(request, REQUEST, "a request");
  return { method, url: text(url, "a request: url"), timeoutMs, maxResponseBytes, ...toMessage(request) };
};

const fromResponse = (response) => ({ status: response.status, ...fromMessage(response) });

/** What is asked of other systems; what the host refuses is thrown as a `Refusal`. */
export const http = {
  send: (request) => call(() => fromResponse(host.send(toRequest(request)))),
  sendAuthorized: (request, secret, scheme = "Bearer") =>
    use(secret, (handle) => call(() => fromResponse(host.sendAuthorized(toRequest(request), scheme, handle)))),
  sendAll: (requests) =>
    host
      .sendAll(requests.map(toRequest))
      .map(({ tag, val }) => (tag === "ok" ? fromResponse(val) : fromFault(val))),
};
