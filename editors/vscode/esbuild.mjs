// Bundles the extension, the log view's page, and the tests.
import { build } from 'esbuild';
import fs from 'node:fs';
import path from 'node:path';

const root = import.meta.dirname;
const production = process.argv.includes('--production');
const common = { absWorkingDir: root, bundle: true, minify: production, sourcemap: production ? false : 'linked', logLevel: 'warning', legalComments: 'none' };

export async function bundle() {
  fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true });
  await Promise.all([
    // ws can use two native modules if they are there; they never are.
    build({ ...common, entryPoints: ['src/extension.ts'], outfile: 'dist/extension.js', platform: 'node', format: 'cjs', target: 'node20', external: ['vscode', 'bufferutil', 'utf-8-validate'], mainFields: ['module', 'main'] }),
    build({ ...common, entryPoints: ['webview/main.ts'], outfile: 'dist/logs.js', platform: 'browser', format: 'iife', target: 'es2022' }),
    build({ ...common, entryPoints: ['webview/logs.css'], outfile: 'dist/logs.css' }),
  ]);
}

export async function tests() {
  fs.rmSync(path.join(root, 'out'), { recursive: true, force: true });
  await build({
    ...common, minify: false, entryPoints: fs.readdirSync(path.join(root, 'test')).filter((f) => f.endsWith('.test.ts')).map((f) => `test/${f}`),
    outdir: 'out', platform: 'node', format: 'esm', outExtension: { '.js': '.mjs' }, target: 'node20', external: ['vscode', 'playwright-core', 'bufferutil', 'utf-8-validate', 'esbuild'],
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
}

await bundle();
if (process.argv.includes('--tests')) await tests();
