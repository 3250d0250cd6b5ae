// The settings that are the agent's own say what the agent's schema says: this copies them from it into package.json, and
// all settings from there into README.md. With --check it changes nothing and fails if something is stale.
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

const rows = Object.entries(props)
  .sort(([, a], [, b]) => a.order - b.order)
  .map(([name, s]) => `| \`${name}\` | ${s.enum ? s.enum.map((v) => (v === '' ? 'empty' : `\`${v}\``)).join(', ') : s.type} | ${s.default === '' ? 'empty' : `\`${s.default}\``} | ${s.markdownDescription} |`);
const begin = '<!-- settings: made by npm run generate -->\n';
const end = '<!-- end of settings -->';
const readme = fs.readFileSync(file('README.md'), 'utf8');
const [head, rest] = readme.split(begin);
if (rest === undefined || !rest.includes(end)) throw new Error('README.md has no place for the settings');
const table = `| setting | values | default | |\n|---|---|---|---|\n${rows.join('\n')}\n`;

const outputs = {
  'package.json': JSON.stringify(pkg, null, 2) + '\n',
  'README.md': head + begin + table + rest.slice(rest.indexOf(end)),
};
const stale = Object.entries(outputs).filter(([name, text]) => fs.readFileSync(file(name), 'utf8') !== text);
if (process.argv.includes('--check')) {
  if (stale.length > 0) {
    console.error(`stale: ${stale.map(([name]) => name).join(', ')}; run npm run generate in editors/vscode`);
    process.exit(1);
  }
} else for (const [name, text] of stale) fs.writeFileSync(file(name), text);
