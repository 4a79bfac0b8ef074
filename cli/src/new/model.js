// What a document of the model `@NAME@` is, and what may become of it.

import { model, refuse } from "aegis-module";

export const { identity, describeModel, hooks, commands, lifecycle } = model({
  name: "@NAME@",
  endpoint: "@ENDPOINT@",
  version: "1.0.0",
  fields: {
    // A document without it is refused.
    title: { kind: "text", rules: ["required"], schema: { maxLength: 200 } },
    // New documents are open unless they say so.
    closed: { kind: "boolean", default: false },
  },
  hooks: {
    // Has the last word before a document is stored; `before` is undefined when it is new.
    validate: (document, before) => {
      if (before?.closed && document.title !== before.title) {
        throw refuse("conflict", "it is closed", { title: "cannot change any more" });
      }
    },
  },
  commands: {
    // POST /aegis/api/models/@ENDPOINT@/ID/close; what it returns is stored, because it `saves`.
    close: {
      description: "Closes it.",
      saves: true,
      run: (_, document) => {
        if (!document) throw refuse("invalid", "this command is about one document");
        return { ...document.data, closed: true };
      },
    },
  },
});
