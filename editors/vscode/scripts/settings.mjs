// The settings that are the agent's own say what the agent's schema says, and what a debug configuration can have is what
// the debug adapter reads: this copies both into package.json, and all settings and members from there into README.md.
// With --check it changes nothing and fails if something is stale.
import fs from 'node:fs';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);
const file = (...p) => path.join(root, ...p);
const schema = JSON.parse(fs.readFileSync(file('../../server/settings/fairlead.schema.json'), 'utf8'));
const pkg = JSON.parse(fs.readFileSync(file('package.json'), 'utf8'));
const props = pkg.contributes.configuration.properties;

/** Keys of fairlead.yaml that the editor can set too; what is set here goes before the files. */
const shared = ['on'];
const enumDescriptions = { on: { '': 'As fairlead.yaml says.', local: 'On this machine.', kubernetes: 'In a cluster.' } };

shared.forEach((key, i) => {
  const s = key.split('.').reduce((o, k) => o?.properties?.[k], schema);
  if (!s) throw new Error(`server/settings has no ${key}`);
  // The sentence's subject is the key, as the editor writes it.
  const says = s.description.replace(`\`${key.split('.').at(-1)}\` `, `\`fairlead.${key}\` `);
  const out = { type: 'string' };
  if (s.enum) {
    out.enum = ['', ...s.enum];
    out.enumDescriptions = out.enum.map((v) => enumDescriptions[key]?.[v] ?? '');
  }
  if (s.pattern) out.pattern = `^$|${s.pattern}`;
  Object.assign(out, { default: '', order: 1 + i / 10, markdownDescription: `${says} Empty leaves it to \`fairlead.yaml\`${s.default ? ` and its default, \`${s.default}\`` : ''}.` });
  props[`fairlead.${key}`] = out;
});

const members = JSON.parse(fs.readFileSync(file('../../debugadapter/configuration.json'), 'utf8'));
const shapes = {
  string: { type: 'string' }, boolean: { type: 'boolean' }, integer: { type: 'integer' },
  strings: { type: 'array', items: { type: 'string' } },
  map: { type: 'object', additionalProperties: { type: 'string' } },
  paths: { type: 'array', items: { type: 'object', required: ['from', 'to'], properties: { from: { type: 'string' }, to: { type: 'string' } } } },
};
/** What completion writes, where it is not the type's own. */
const written = { program: '${fileDirname}', onSave: 'continue', stopOnEntry: true, noDebug: true, hideSystemGoroutines: true, showGlobalVariables: true };
const attributes = (request) => ({
  properties: Object.fromEntries(members.filter((m) => m[request]).map((m) => {
    if (!shapes[m.type]) throw new Error(`debugadapter: ${m.name} is of the type ${m.type}, which is not known here`);
    const choices = m.enum?.filter((c) => c[request] || (!c.launch && !c.attach));
    return [m.name, {
      ...shapes[m.type],
      ...(choices ? { enum: choices.map((c) => c.value), enumDescriptions: choices.map((c) => c.text) } : {}),
      ...(m.name in written ? { default: written[m.name] } : {}),
      description: m.text,
    }];
  })),
});
const [debugger_] = pkg.contributes.debuggers;
debugger_.configurationAttributes = { launch: attributes('launch'), attach: attributes('attach') };
const requests = (m) => (m.launch && m.attach ? 'launch, attach' : m.launch ? 'launch' : 'attach');
const memberRows = members.map((m) => `| \`${m.name}\` | ${requests(m)} | ${m.enum ? m.enum.map((c) => `\`${c.value}\``).join(', ') : m.type === 'paths' ? '`[{"from", "to"}]`' : { strings: 'list', map: 'object' }[m.type] ?? m.type} | ${m.text} |`);

const rows = Object.entries(props)
  .sort(([, a], [, b]) => a.order - b.order)
  .map(([name, s]) => `| \`${name}\` | ${s.enum ? s.enum.map((v) => (v === '' ? 'empty' : `\`${v}\``)).join(', ') : s.type} | ${s.default === '' ? 'empty' : `\`${s.default}\``} | ${s.markdownDescription} |`);
/** put puts a table into its place in a text. */
const put = (text, what, table) => {
  const begin = `<!-- ${what}: made by npm run generate -->\n`;
  const end = `<!-- end of ${what} -->`;
  const [head, rest] = text.split(begin);
  if (rest === undefined || !rest.includes(end)) throw new Error(`README.md has no place for the ${what}`);
  return head + begin + table + rest.slice(rest.indexOf(end));
};
let readme = fs.readFileSync(file('README.md'), 'utf8');
readme = put(readme, 'settings', `| setting | values | default | |\n|---|---|---|---|\n${rows.join('\n')}\n`);
readme = put(readme, 'debug configuration', `| member | request | values | |\n|---|---|---|---|\n${memberRows.join('\n')}\n`);

const outputs = {
  'package.json': JSON.stringify(pkg, null, 2) + '\n',
  'README.md': readme,
};
const stale = Object.entries(outputs).filter(([name, text]) => fs.readFileSync(file(name), 'utf8') !== text);
if (process.argv.includes('--check')) {
  if (stale.length > 0) {
    console.error(`stale: ${stale.map(([name]) => name).join(', ')}; run npm run generate in editors/vscode`);
    process.exit(1);
  }
} else for (const [name, text] of stale) fs.writeFileSync(file(name), text);
