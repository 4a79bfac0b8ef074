#!/usr/bin/env node
// Makes a component of a module in JavaScript or TypeScript: bundle, then put it into a QuickJS that has begun already.
// The component imports what the bundle uses of the host, and exports what the source exports of the contract.

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
/** The contract: beside this file when it was packed, in the sources otherwise. */
const CONTRACT = [join(HERE, "wit"), join(HERE, "../../wit")].find((folder) => existsSync(join(folder, "types.wit")));

/** What a component may export of the contract. (componentize-qjs does not give handles back in time for document-hooks.) */
const EXPORTS = [
  "identity", "describe-model", "hooks", "commands", "routes", "event-handlers", "lifecycle", "handover",
];

/** What the description of a module is made of: types, and so never an import of the bundle. */
const SPEC = "aegis:module/spec@1.0.0";

const [source, output] = process.argv.slice(2);
if (!source || !output) {
  console.error("usage: aegis-module SOURCE.js OUTPUT.wasm");
  process.exit(2);
}

async function tool(name) {
  try {
    return await import(name);
  } catch (error) {
    console.error(`found no ${name} (${error.code ?? error.message}); npm install --prefix ${HERE} brings it`);
    process.exit(1);
  }
}

/** Interfaces of the host: none of them has to be there just because a file of this folder names it. */
const host = {
  name: "host",
  setup: (build) =>
    build.onResolve({ filter: /^aegis:/ }, ({ path }) => ({ path, external: true, sideEffects: false })),
};

/** The world of a bundle: what it uses and offers. */
function world({ imports, exports }) {
  const paths = imports.filter(({ external, path }) => external && path.startsWith("aegis:")).map(({ path }) => path);
  const used = [...new Set(paths)].filter((path) => path !== SPEC);
  const kebab = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const offered = EXPORTS.filter((name) => exports.map(kebab).includes(name));
  return [
    "package aegis:javascript;",
    "world module {",
    `    import ${SPEC};`,
    ...used.map((path) => `    import ${path};`),
    ...offered.map((name) => `    export aegis:module/${name}@1.0.0;`),
    "}",
  ].join("\n");
}

/** A bundle of the source, written to `outfile`, and what it uses and offers. */
async function bundle(outfile) {
  const { build } = await tool("esbuild");
  const { metafile } = await build({
    entryPoints: [resolve(source)],
    outfile,
    bundle: true,
    format: "esm",
    platform: "neutral",
    target: "es2022",
    metafile: true,
    plugins: [host],
    alias: { "aegis-module": join(HERE, "index.js") },
    logLevel: "warning",
  });
  const made = Object.values(metafile.outputs)[0];
  const missing = ["identity", "describeModel"].filter((name) => !made.exports.includes(name));
  if (missing.length > 0) {
    const found = made.exports.length > 0 ? made.exports.join(", ") : "none";
    throw new Error(`found the exports ${found}, expected identity and describeModel of model({ … }) as well`);
  }
  return made;
}

/** The component of a module. */
async function component(folder) {
  const bundled = join(folder, "module.js");
  const made = await bundle(bundled);
  const { componentize } = await tool("componentize-qjs");
  const wit = join(folder, "wit");
  await cp(CONTRACT, join(wit, "deps", "aegis-module"), { recursive: true });
  await writeFile(join(wit, "world.wit"), world(made));
  const jsSource = await readFile(bundled, "utf8");
  const built = await componentize({ witPath: wit, jsSource, jsPath: bundled, world: "module", sync: true });
  return built.component;
}

/** What to say of a build that failed; nothing where esbuild has said it. */
function words(error) {
  if (Array.isArray(error.errors)) return undefined;
  const [, asked] = error.message.match(/!adapter ([a-z-]+)/) ?? [];
  if (asked) return `called ${JSON.stringify(asked)} of the host while the module is built, expected it inside of functions`;
  const [, thrown] = error.message.match(/^.*module evaluation: (?:Error: )?(.*)$/s) ?? [undefined, error.message];
  // What is wrong with a description says where it is. Where in the bundle other errors are helps to find them.
  return /^[^\n]*: found [^\n]*, expected /.test(thrown) ? thrown.split("\n", 1)[0] : thrown.trimEnd();
}

const folder = await mkdtemp(join(tmpdir(), "aegis-module-"));
try {
  const bytes = await component(folder);
  await mkdir(dirname(resolve(output)), { recursive: true });
  await writeFile(output, bytes);
  console.log(`${output}: ${bytes.length} bytes`);
} catch (error) {
  const said = words(error);
  if (said) console.error(`${source}: ${said}`);
  process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
