#!/usr/bin/env node
// Makes a component of a module in JavaScript or TypeScript: bundle, then put it into a QuickJS that has begun already.

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
/** The contract: beside this file when it was packed, in the sources otherwise. */
const CONTRACT = [join(HERE, "wit"), join(HERE, "../../wit")].find((folder) => existsSync(join(folder, "types.wit")));

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

const { build } = await tool("esbuild");
const { componentize } = await tool("componentize-qjs");
const folder = await mkdtemp(join(tmpdir(), "aegis-module-"));
try {
  const bundled = join(folder, "module.js");
  await build({
    entryPoints: [resolve(source)],
    outfile: bundled,
    bundle: true,
    format: "esm",
    platform: "neutral",
    target: "es2022",
    external: ["aegis:*"],
    alias: { "aegis-module": join(HERE, "model.js") },
    logLevel: "warning",
  });
  const wit = join(folder, "wit");
  await cp(CONTRACT, join(wit, "deps", "aegis-module"), { recursive: true });
  await cp(join(HERE, "world.wit"), join(wit, "world.wit"));
  const { component } = await componentize({
    witPath: wit,
    jsSource: await readFile(bundled, "utf8"),
    jsPath: bundled,
    world: "module",
    sync: true,
  });
  await mkdir(dirname(resolve(output)), { recursive: true });
  await writeFile(output, component);
  console.log(`${output}: ${component.length} bytes`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
