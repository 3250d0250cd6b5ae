// The debugger: VS Code's debug sessions of the type "fairlead", each with `fairlead dap` as its adapter. What a session
// survives, and what a save does to it, is the adapter's and the agent's to know.

import { statSync } from 'node:fs';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { agentPath, message, type Client } from './client';
import type { Service } from './protocol';

const type = 'fairlead';

/** Choice is what a save does while the service stands in the debugger, as fairlead.debugChoice takes it. */
export interface Choice {
  on_save?: string;
  apply?: boolean;
}

/** Started is what fairlead.run answers. */
export interface Started {
  name: string;
  service: string;
}

/** choices are what a person can say while a service stands in the debugger; the first is only for a save that waits. */
export function choices(s: Service): { icon: string; label: string; description: string; choice: Choice }[] {
  return [
    ...(s.debug?.waiting ? [{ icon: 'debug-restart', label: 'Swap Now', description: `generation ${s.debug.waiting} at once; where it stands is lost`, choice: { apply: true } }] : []),
    { icon: 'debug-continue', label: 'When I Continue', description: 'saves wait for that', choice: { on_save: 'continue' } },
    { icon: 'circle-slash', label: 'Never While Stopped', description: 'saves wait until you restart or stop debugging', choice: { on_save: 'never' } },
  ];
}

export class Debugging implements vscode.DebugConfigurationProvider, vscode.DebugAdapterDescriptorFactory {
  private readonly sessions = new Set<vscode.DebugSession>();
  /** Names of environments whose session VS Code is starting: a second click must not start another. */
  private readonly starting = new Set<string>();

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly client: Client,
  ) {}

  register(): vscode.Disposable[] {
    return [
      vscode.debug.registerDebugAdapterDescriptorFactory(type, this),
      vscode.debug.registerDebugConfigurationProvider(type, this),
      vscode.debug.registerDebugConfigurationProvider(type, { provideDebugConfigurations: () => this.offered() }, vscode.DebugConfigurationProviderTriggerKind.Dynamic),
      vscode.debug.onDidStartDebugSession((s) => {
        if (s.type === type) this.sessions.add(s);
      }),
      vscode.debug.onDidTerminateDebugSession((s) => this.sessions.delete(s)),
    ];
  }

  createDebugAdapterDescriptor(session: vscode.DebugSession): vscode.DebugAdapterDescriptor {
    // VS Code asks for trust before it debugs; the process is not started without it, whatever asks.
    if (!vscode.workspace.isTrusted) throw new Error('this folder is not trusted: nothing is debugged in it');
    const folder = session.workspaceFolder ?? vscode.workspace.workspaceFolders?.find((f) => f.uri.scheme === 'file');
    return new vscode.DebugAdapterExecutable(agentPath(this.context), ['dap'], folder?.uri.scheme === 'file' ? { cwd: folder.uri.fsPath } : {});
  }

  /** resolveDebugConfiguration says what a configuration leaves out; without any there is none to say it in: F5. */
  async resolveDebugConfiguration(folder: vscode.WorkspaceFolder | undefined, c: vscode.DebugConfiguration): Promise<vscode.DebugConfiguration | undefined> {
    const none = !c.type && !c.request && !c.name;
    if (none) Object.assign(c, { type, request: 'launch', name: 'Debug this service' });
    if (c.request !== 'launch') return c;
    const on = vscode.workspace.getConfiguration('fairlead').get('on', '');
    if (on && c.on === undefined) c.on = on;
    if (c.program === undefined && c.service === undefined && c.mode !== 'core') c.program = here(folder);
    if (!none || c.program === undefined) return c;
    try {
      // This window holds the environment then, as after a click on the button.
      const answer = (await this.client.execute('fairlead.run', { uri: vscode.Uri.file(c.program as string).toString() })) as Started;
      return { ...c, name: `Debug ${answer.service}`, __environment: answer.name };
    } catch (err) {
      void vscode.window.showErrorMessage(message(err));
      return undefined;
    }
  }

  /** offered are the configurations of "Select and Start Debugging" and the debug view's list. */
  private offered(): vscode.DebugConfiguration[] {
    return [
      { type, request: 'launch', name: 'Fairlead: debug this service', program: '${fileDirname}' },
      ...this.client.services.services.filter((s) => s.phase !== 'ended' && s.phase !== 'stopping').map((s) => ({ type, request: 'attach', name: `Fairlead: attach to ${s.name}`, service: s.name })),
    ];
  }

  /** focus shows the debug session of a service, if this window has one or is about to. */
  focus(s: { name: string; package?: string | undefined }): boolean {
    const is = ({ configuration: c }: vscode.DebugSession): boolean =>
      c.mode !== 'test' && c.mode !== 'core' && (c.__environment === s.name || c.service === s.name || (s.package !== undefined && typeof c.program === 'string' && path.normalize(folderOf(c.program)) === path.normalize(s.package)));
    if (!this.starting.has(s.name) && ![...this.sessions].some(is)) return false;
    void vscode.commands.executeCommand('workbench.view.debug');
    return true;
  }

  /** launch debugs what was run: a file's service, or a folder's. */
  async launch(started: Started, of: { uri?: string; dir?: string; main?: string }): Promise<void> {
    const program = of.dir ?? (of.uri ? folderOf(vscode.Uri.parse(of.uri).fsPath) : here(undefined));
    await this.start(started.name, program, { request: 'launch', name: `Debug ${started.service}`, program, ...(of.main ? { main: of.main } : {}), __environment: started.name });
  }

  async attach(s: Service): Promise<void> {
    await this.start(s.name, s.package ?? s.dir, { request: 'attach', name: `Debug ${s.service}`, service: s.name });
  }

  async test(file: vscode.Uri, name: string): Promise<void> {
    const program = folderOf(file.fsPath);
    await this.start(`test ${program} ${name}`, program, { request: 'launch', mode: 'test', name: `Debug ${name}`, program, args: [`-test.run=^${name}$`] });
  }

  async core(s: Service, core: string): Promise<void> {
    await this.start(`core ${s.name}`, s.package ?? s.dir, { request: 'launch', mode: 'core', name: `Core dump of ${s.service}`, service: s.name, coreFilePath: core });
  }

  private async start(key: string, dir: string | undefined, config: { request: string; name: string; [member: string]: unknown }): Promise<void> {
    if (this.starting.has(key)) return;
    this.starting.add(key);
    try {
      const folder = dir === undefined ? undefined : vscode.workspace.getWorkspaceFolder(vscode.Uri.file(dir));
      // VS Code says itself why a session does not start.
      await vscode.debug.startDebugging(folder, { type, ...config });
    } finally {
      this.starting.delete(key);
    }
  }

  /** ask asks what is to be done with what is saved while a service stands in the debugger. */
  async ask(s: Service): Promise<Choice | undefined> {
    const picked = await vscode.window.showQuickPick(
      choices(s).map((c) => ({ label: `$(${c.icon}) ${c.label}`, description: c.description, choice: c.choice })),
      { title: 'Fairlead', placeHolder: `What does a save do while ${s.service} stands in the debugger?` },
    );
    return picked?.choice;
  }
}

/** here is the active Go file's folder, else the workspace's. */
function here(folder: vscode.WorkspaceFolder | undefined): string | undefined {
  const doc = vscode.window.activeTextEditor?.document;
  if (doc?.uri.scheme === 'file' && doc.languageId === 'go') return path.dirname(doc.uri.fsPath);
  const f = folder ?? vscode.workspace.workspaceFolders?.find((x) => x.uri.scheme === 'file');
  return f?.uri.scheme === 'file' ? f.uri.fsPath : undefined;
}

/** folderOf is a path itself where it is a folder, else the folder that it is in. */
function folderOf(file: string): string {
  return statSync(file, { throwIfNoEntry: false })?.isDirectory() ? file : path.dirname(file);
}
