// Packages the extension, one .vsix per platform, each with the agent for it. `npm run vsix -- [TARGET...]`, or make vsix at
// the top, which also makes what the agent carries. Options: --out DIR, --agent FILE (an executable to take as it is),
// --version V (the agent's; the extension's own is package.json's).
import { createVSIX } from '@vscode/vsce';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

const root = path.dirname(import.meta.dirname);
const repository = path.join(root, '../..');

/** By target: the agent is static, so that Alpine's is Linux's. */
export const targets = {
  'linux-x64': ['linux', 'amd64'], 'linux-arm64': ['linux', 'arm64'],
  'alpine-x64': ['linux', 'amd64'], 'alpine-arm64': ['linux', 'arm64'],
  'darwin-x64': ['darwin', 'amd64'], 'darwin-arm64': ['darwin', 'arm64'],
  'win32-x64': ['windows', 'amd64'], 'win32-arm64': ['windows', 'arm64'],
};

const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: 'string' }, agent: { type: 'string' }, version: { type: 'string', default: 'dev' } } });
const wanted = positionals.filter((t) => t !== '');
for (const t of wanted) if (!targets[t]) throw new Error(`no target ${t}; there are ${Object.keys(targets).join(', ')}`);
const out = path.resolve(values.out ?? path.join(repository, 'dist'));
fs.mkdirSync(out, { recursive: true });
const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

execFileSync(process.execPath, [path.join(root, 'esbuild.mjs'), '--production'], { stdio: 'inherit' });
const bin = path.join(root, 'bin');
let built = '';
for (const target of wanted.length > 0 ? wanted : Object.keys(targets)) {
  const [os, arch] = targets[target];
  const file = path.join(bin, os === 'windows' ? 'fairlead.exe' : 'fairlead');
  if (values.agent || built !== `${os}/${arch}`) {
    fs.rmSync(bin, { recursive: true, force: true });
    fs.mkdirSync(bin);
    if (values.agent) fs.copyFileSync(values.agent, file);
    else {
      execFileSync('go', ['build', '-trimpath', '-buildvcs=false', `-ldflags=-s -w -X main.version=${values.version}`, '-o', file, './cmd/fairlead'],
        { cwd: repository, stdio: 'inherit', env: { ...process.env, GOOS: os, GOARCH: arch, CGO_ENABLED: '0' } });
      built = `${os}/${arch}`;
    }
    fs.chmodSync(file, 0o755);
  }
  const packagePath = path.join(out, `fairlead-${target}-${version}.vsix`);
  // The build above is all that there is to do before, and the bundle has all dependencies in it.
  await createVSIX({ cwd: root, target, packagePath, dependencies: false, allowMissingRepository: true, rewriteRelativeLinks: false, skipLicense: false });
  console.log(`${path.relative(process.cwd(), packagePath)}  ${(fs.statSync(packagePath).size / 2 ** 20).toFixed(1)} MiB`);
}
