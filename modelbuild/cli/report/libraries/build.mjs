// Writes ../libraries.js, the same bytes from the same package-lock.json:
//     npm ci --ignore-scripts && node build.mjs && sha256sum --check SHA256SUMS
// It begins with the licences of what is in it, so that every page carries them.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const bundle = await build({
  bundle: true,
  entryPoints: ["libraries.mjs"],
  format: "iife",
  legalComments: "none",
  metafile: true,
  minify: true,
  write: false,
});

const packages = new Set(
  Object.keys(bundle.metafile.inputs)
    .map((file) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1])
    .filter(Boolean),
);

function notice(name) {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? readFileSync(`${folder}/${file}`, "utf8").trim() : `License: ${license}`;
  return { title: `${name} ${version} (${license})`, text };
}

// Several packages have the same text.
const titles = new Map();
for (const { title, text } of [...packages].sort().map(notice)) {
  titles.set(text, [...(titles.get(text) ?? []), title]);
}
const notices = [...titles].map(([text, names]) => `${names.join(", ")}\n\n${text}`);
const header = `/*!\n${notices.join("\n\n---\n\n").replaceAll("*/", "* /")}\n*/\n`;
writeFileSync("../libraries.js", header + bundle.outputFiles[0].text);
