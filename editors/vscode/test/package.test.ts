// What is packaged, and that what is declared in one place is there in the other.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { inflateRawSync } from 'node:zlib';

const root = path.join(import.meta.dirname, '..');
const repository = path.join(root, '../..');
const read = (...p: string[]): string => fs.readFileSync(path.join(...p), 'utf8');
interface Manifest {
  version: string;
  contributes: {
    commands: { command: string }[];
    menus: Record<string, { command: string; when?: string }[]>;
    keybindings: { command: string }[];
    views: Record<string, { id: string }[]>;
    viewsWelcome: { contents: string }[];
    walkthroughs: { id: string; steps: { description: string; media: { svg: string } }[] }[];
    configuration: { properties: Record<string, { default?: unknown; markdownDescription?: string; scope?: string }> };
  };
  devDependencies: Record<string, string>;
}
const manifest = JSON.parse(read(root, 'package.json')) as Manifest;
const c = manifest.contributes;

test('every command that is named is declared and registered', () => {
  const declared = new Set(c.commands.map((x) => x.command));
  const registered = new Set([...read(root, 'src/commands.ts').matchAll(/(?:add|view)\('(fairlead\.[\w.]+)'/g)].map((m) => m[1]!));
  // The lens with the state has it; nobody looks for it in the palette.
  registered.delete('fairlead.details');
  // The lens above a test has it, which knows the test.
  registered.delete('fairlead.debugTest');
  assert.deepEqual([...declared].sort(), [...registered].sort());
  const text = JSON.stringify([c.viewsWelcome, c.walkthroughs]);
  const named = [...Object.values(c.menus).flat(), ...c.keybindings].map((x) => x.command).concat([...text.matchAll(/command:(fairlead\.[\w.]+)/g)].map((m) => m[1]!));
  assert.ok(named.length > 30);
  for (const n of named) assert.ok(declared.has(n), n);
  // What needs an environment is not offered without one.
  for (const x of c.commands.filter((x) => /stop|open|cancel|copy(Url|Digest)|debug(Choice|Core)|logs\./.test(x.command))) assert.ok(c.menus.commandPalette!.some((m) => m.command === x.command && m.when), x.command);
  for (const s of c.walkthroughs[0]!.steps) assert.ok(fs.existsSync(path.join(root, s.media.svg)));
});

test('every setting is read, documented and has a default', () => {
  const source = ['client', 'commands', 'logs', 'extension'].map((f) => read(root, `src/${f}.ts`)).join('\n');
  for (const [name, s] of Object.entries(c.configuration.properties)) {
    assert.ok(s.markdownDescription && s.default !== undefined, name);
    // The language client reads its own.
    if (name !== 'fairlead.trace.server') assert.ok(source.includes(`get('${name.replace('fairlead.', '')}'`), name);
    assert.ok(read(root, 'README.md').includes(`\`${name}\``), name);
  }
  // A workspace's files must not say which program is run.
  assert.equal(c.configuration.properties['fairlead.agentPath']!.scope, 'machine');
});

test('the agent\'s words are ours', () => {
  const phases = [...read(repository, 'api/agent.go').matchAll(/^\tPhase\w+\s+Phase = "(\w+)"/gm)].map((m) => m[1]!).sort();
  assert.ok(phases.length > 5);
  const ours = [...read(root, 'src/protocol.ts').matchAll(/^const phases = new Set<string>\(\[(.*)\]\)/gm)][0]![1]!.match(/\w+/g)!.sort();
  assert.deepEqual(ours, phases);
  const go = path.join(repository, 'server/lsp/initialize.go');
  const settings = /type editorSettings struct \{([^]*?)\n\}/.exec(fs.readFileSync(go, 'utf8'))![1]!;
  const taken = [...settings.matchAll(/json:"(\w+)"/g)].map((m) => m[1]!);
  // buildDiagnostics is for clients that cannot see what gopls shows; we can.
  assert.deepEqual([...taken].filter((t) => t !== 'buildDiagnostics').sort(), ['beside', 'codeLens', 'on', 'openBrowser', 'trusted']);
  const commands = [...`${read(repository, 'server/lsp/execute_command.go')}${read(repository, 'server/lsp/debug.go')}`.matchAll(/^\tcommand\w+\s+= "(fairlead\.\w+)"/gm)].map((m) => m[1]!);
  assert.ok(commands.length >= 11);
  // Two are steps of a command that asks in between.
  for (const x of commands) assert.ok(read(root, 'src/commands.ts').includes(`add('${x}'`) || read(root, 'src/review.ts').includes(`execute('${x}'`), x);
});

test('what is installed is pinned, and from no host in particular', () => {
  for (const [name, v] of Object.entries(manifest.devDependencies)) assert.match(v, /^\d+\.\d+\.\d+$/, name);
  assert.doesNotMatch(read(root, 'package-lock.json'), /"resolved"/);
});

/** entries lists a zip file's: name, mode, content. */
function entries(file: string): Map<string, { mode: number; data: Buffer }> {
  const b = fs.readFileSync(file);
  const end = b.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]));
  const out = new Map<string, { mode: number; data: Buffer }>();
  for (let at = b.readUInt32LE(end + 16), n = b.readUInt16LE(end + 10); n > 0; n--) {
    const size = b.readUInt32LE(at + 20);
    const name = b.toString('utf8', at + 46, at + 46 + b.readUInt16LE(at + 28));
    const local = b.readUInt32LE(at + 42);
    const start = local + 30 + b.readUInt16LE(local + 26) + b.readUInt16LE(local + 28);
    const raw = b.subarray(start, start + size);
    out.set(name, { mode: b.readUInt32LE(at + 38) >>> 16, data: b.readUInt16LE(at + 10) === 0 ? raw : inflateRawSync(raw) });
    at += 46 + b.readUInt16LE(at + 28) + b.readUInt16LE(at + 30) + b.readUInt16LE(at + 32);
  }
  return out;
}

const parts = ['[Content_Types].xml', 'extension.vsixmanifest', 'extension/LICENSE.txt', 'extension/changelog.md', 'extension/dist/extension.js', 'extension/dist/logs.css', 'extension/dist/logs.js',
  'extension/media/fairlead.svg', 'extension/media/icon.png', 'extension/media/walkthrough/cluster.svg', 'extension/media/walkthrough/debug.svg', 'extension/media/walkthrough/edit.svg', 'extension/media/walkthrough/open.svg', 'extension/media/walkthrough/run.svg',
  'extension/package.json', 'extension/readme.md'];

test('the package has what it needs and nothing else', (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'fairlead-vsix-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  // It is made from a copy: the tests beside this one use the bundle that is here.
  const copy = path.join(dir, 'editors/vscode');
  fs.cpSync(root, copy, { recursive: true, filter: (f) => !/[\\/](node_modules|out|bin|dist)$/.test(f) });
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
  fs.writeFileSync(path.join(dir, 'agent'), '#!/bin/sh\n', { mode: 0o644 });
  for (const [target, agent] of [['linux-arm64', 'fairlead'], ['win32-x64', 'fairlead.exe']] as const) {
    execFileSync(process.execPath, [path.join(copy, 'scripts/vsix.mjs'), '--agent', path.join(dir, 'agent'), '--out', dir, target], { stdio: 'pipe' });
    const got = entries(path.join(dir, `fairlead-${target}-${manifest.version}.vsix`));
    assert.deepEqual([...got.keys()].sort(), [...parts, `extension/bin/${agent}`].sort());
    assert.equal(got.get(`extension/bin/${agent}`)!.mode & 0o777, 0o755, 'the agent can be run');
    assert.match(got.get('extension.vsixmanifest')!.data.toString(), new RegExp(`TargetPlatform="${target}"`));
    let size = 0;
    for (const e of got.values()) size += e.data.length;
    assert.ok(size < 1 << 20, `${size} bytes beside the agent`);
    for (const [name, e] of got) assert.ok(!e.data.includes(root) && !e.data.includes('sourceMappingURL'), `${name} knows this machine`);
  }
});

// The real ones: those of make vsix, and the one that the workbench's tests install.
const dist = path.join(repository, 'dist');
const made = fs.existsSync(dist) ? fs.readdirSync(dist).filter((f) => f.endsWith(`-${manifest.version}.vsix`)).map((f) => path.join(dist, f)) : [];
if (process.env.FAIRLEAD_TEST_VSIX) made.push(process.env.FAIRLEAD_TEST_VSIX);
const none = made.length === 0 ? 'no dist/*.vsix: make vsix' : false;
if (none && process.env.CI === 'true') throw new Error(none);
test('the packages that were made carry the agent', { skip: none }, () => {
  for (const file of made) {
    const f = path.basename(file);
    const size = fs.statSync(file).size;
    assert.ok(size > 10 << 20 && size < 40 << 20, `${f}: ${(size / 2 ** 20).toFixed(1)} MiB`);
    const got = entries(file);
    const agent = [...got.keys()].find((n) => n.startsWith('extension/bin/'))!;
    const magic = got.get(agent)!.data.subarray(0, 4).toString('hex');
    assert.match(magic, f.includes('win32') ? /^4d5a/ : f.includes('darwin') ? /^cffaedfe$/ : /^7f454c46$/, f);
    assert.deepEqual([...got.keys()].filter((n) => n !== agent).sort(), parts);
  }
});
