// Code that promises instead of answering, in JavaScript: nobody waits for it, so each is a defect and no yes. What it is
// told to forget it does not answer at all.

import { model, refuse } from "aegis-module";

const no = async () => {
  throw refuse("invalid", "it is not valid");
};

const create = (input) => (input.forgotten ? undefined : Promise.resolve(input));

export const { identity, describeModel, hooks, commands, eventHandlers, lifecycle } = model({
  name: "vow",
  hooks: { create, validate: no, update: no, remove: no, load: async ({ data }) => data },
  commands: {
    keep: { run: async () => "kept" },
    misspell: {
      run: () => {
        throw refuse("not_found", "nobody knows this code");
      },
    },
  },
  events: { CREATEVOW: no },
  health: no,
});
