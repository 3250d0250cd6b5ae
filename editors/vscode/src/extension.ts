// The extension draws what the agent says. It makes its parts and connects them; it decides nothing that another editor
// would have to decide too.

import * as path from 'node:path';
import * as vscode from 'vscode';
import { Client } from './client';
import { Commands } from './commands';
import { Debugging } from './debug';
import { Logs } from './logs';
import { StatusBar } from './statusbar';
import { inside, otherMode } from './text';
import { Environments } from './tree';

let client: Client | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const out = vscode.window.createOutputChannel('Fairlead', { log: true });
  client = new Client(context, out);
  const c = client;
  if (!vscode.workspace.isTrusted) c.state = { state: 'untrusted' };
  const logs = new Logs(context, c);
  const bar = new StatusBar(c);
  const debugging = new Debugging(context, c);
  const tree = new Environments(c);

  const draw = (): void => {
    bar.draw();
    tree.draw();
    logs.draw();
    contexts(c);
  };
  context.subscriptions.push(
    out, c, logs, bar, tree,
    ...debugging.register(),
    ...new Commands(c, logs, debugging).register(),
    c.onDidChange(draw),
    vscode.window.registerWebviewViewProvider(Logs.id, logs, { webviewOptions: { retainContextWhenHidden: true } }),
    vscode.window.onDidChangeActiveTextEditor(() => {
      bar.draw();
      contexts(c);
    }),
    vscode.workspace.onDidGrantWorkspaceTrust(() => void c.start()),
    vscode.workspace.onDidChangeConfiguration((e) => {
      if (!e.affectsConfiguration('fairlead')) return;
      if (e.affectsConfiguration('fairlead.logs')) logs.settings();
      if (e.affectsConfiguration('fairlead.agentPath') && vscode.workspace.isTrusted) void c.restart();
      else c.configure();
    }),
  );
  draw();
  // Nothing of the folder is run, and no process is started for it, before the user has said that it is trusted.
  if (vscode.workspace.isTrusted) void c.start();
}

export async function deactivate(): Promise<void> {
  await client?.stop();
}

const told = new Map<string, unknown>();

/** contexts tells the workbench what its menus and welcome views ask. */
function contexts(c: Client): void {
  const { services } = c.services;
  const doc = vscode.window.activeTextEditor?.document;
  const file = doc?.uri.scheme === 'file' ? doc.uri.fsPath : undefined;
  const up = services.filter((s) => s.phase !== 'ended' && s.phase !== 'stopping');
  // The file's own service: by its main package, or by its module where no other main package is open in it.
  const mine = file === undefined ? undefined
    : up.find((s) => s.package && path.dirname(file) === path.normalize(s.package))
      ?? (doc && /^package main\b/m.test(doc.getText(new vscode.Range(0, 0, 200, 0))) ? undefined : up.find((s) => inside(file, s.module ?? s.dir)));
  const set = (key: string, value: unknown): void => {
    if (told.get(key) === value) return;
    told.set(key, value);
    void vscode.commands.executeCommand('setContext', key, value);
  };
  set('fairlead.client', c.state.state);
  set('fairlead.services', services.length);
  set('fairlead.running', up.length > 0);
  set('fairlead.urls', up.some((s) => s.url !== undefined && s.url !== ''));
  set('fairlead.busy', up.some((s) => ['opening', 'building', 'shipping', 'starting'].includes(s.phase)));
  set('fairlead.joined', up.some((s) => s.joined === true));
  set('fairlead.switchable', up.some((s) => s.dependencies.some((d) => otherMode(s, d) !== '')));
  set('fairlead.live', up.some((s) => s.phase === 'live'));
  set('fairlead.debugged', up.some((s) => s.debug !== undefined));
  set('fairlead.core', up.some((s) => s.core !== undefined));
  set('fairlead.editorDebugged', mine?.debug !== undefined);
  set('fairlead.editorService', mine !== undefined);
  set('fairlead.editorUrl', mine?.url !== undefined && mine.url !== '');
}
