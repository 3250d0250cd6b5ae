// The commands: each hands its argument to the agent's command of the same name, with what only the editor knows (the
// active file). What is still open then, such as which of several main packages, the agent asks.

import * as vscode from 'vscode';
import { message, type Client } from './client';
import { choices, type Choice, type Debugging, type Started } from './debug';
import { linkTarget, parseTarget, type JoinTarget } from './join';
import type { Logs } from './logs';
import { busy, refusedCalls, type Dependency, type Problem, type Service } from './protocol';
import { review } from './review';
import { icon, isWeb, otherMode, phaseText, serviceOf, switchWarning } from './text';
import type { Node } from './tree';

interface Arg extends Choice {
  name?: string;
  uri?: string;
  dir?: string;
  main?: string;
  on?: string;
  port?: number;
  what?: string;
  test?: string;
  core?: string;
  dependency?: string;
}

/** argument reads what a command was called with: a lens's or link's object, a tree row, or a file of the editor title. */
function argument(v: unknown): Arg {
  if (v instanceof vscode.Uri) return v.scheme === 'file' ? { uri: v.toString() } : {};
  if (typeof v !== 'object' || v === null) return {};
  if ('service' in v && 'kind' in v) {
    const node = v as Node;
    return { name: node.service.name, ...(node.kind === 'port' ? { port: node.port.port } : {}), ...(node.kind === 'dependency' ? { dependency: node.dependency.name } : {}) };
  }
  return v as Arg;
}

export class Commands {
  constructor(
    private readonly client: Client,
    private readonly logs: Logs,
    private readonly debugging: Debugging,
  ) {}

  register(): vscode.Disposable[] {
    const add = (id: string, f: (arg: Arg, raw: unknown) => unknown): vscode.Disposable =>
      vscode.commands.registerCommand(id, async (raw: unknown) => {
        try {
          return await f(argument(raw), raw);
        } catch (err) {
          await this.failed(err);
          return undefined;
        }
      });
    const view = (id: string, command: Parameters<Logs['command']>[0]): vscode.Disposable => add(id, () => this.logs.command(command));
    return [
      add('fairlead.run', (a) => this.run(a)),
      add('fairlead.runLocal', (a) => this.run({ ...a, on: 'local' })),
      add('fairlead.runKubernetes', (a) => this.run({ ...a, on: 'kubernetes' })),
      add('fairlead.debug', (a) => this.debug(a)),
      add('fairlead.debugTest', (a) => this.debugTest(a)),
      add('fairlead.debugCore', (a) => this.debugCore(a)),
      add('fairlead.debugChoice', (a) => this.debugChoice(a)),
      add('fairlead.stop', (a) => this.forService(a, 'fairlead.stop', 'Stop and remove which environment?')),
      add('fairlead.join', () => this.join()),
      add('fairlead.leave', (a) => this.forService(a, 'fairlead.stop', 'Leave which environment?', (s) => s.joined === true)),
      add('fairlead.dependency', (a) => this.dependency(a)),
      add('fairlead.makeFresh', (a) => this.dependency(a, 'fresh')),
      add('fairlead.makeShared', (a) => this.dependency(a, 'shared')),
      vscode.window.registerUriHandler({ handleUri: (uri) => this.link(uri).catch((err: unknown) => this.failed(err)) }),
      // Its argument is a code action's, a row of the tree, or only a name or none: then the server takes what stands refused.
      add('fairlead.requestAccess', (a, raw) => this.client.execute('fairlead.requestAccess', accessArg(a, raw))),
      add('fairlead.review', (_, raw) => review(this.client, raw)),
      add('fairlead.keep', (a) => this.keep(a)),
      add('fairlead.open', (a) => this.forService(a, 'fairlead.open', 'Open which service in the browser?', (s) => !!s.url)),
      add('fairlead.cancel', (a) => this.cancel(a)),
      add('fairlead.logs', async (a) => {
        const name = a.name ?? serviceOf(this.client.services.services, activeFile())?.name;
        await this.logs.show(name, true);
      }),
      add('fairlead.restartAgent', () => this.restart()),
      add('fairlead.showOutput', () => this.client.out.show(true)),
      add('fairlead.showActions', (a) => this.actions(a.name)),
      // The lens with the state: what a plain client shows as a message is a list of actions here.
      add('fairlead.details', (a) => this.actions(a.name)),
      add('fairlead.walkthrough', () => vscode.commands.executeCommand('workbench.action.openWalkthrough', 'fairlead.fairlead#fairlead.start', false)),
      add('fairlead.copyUrl', async (a, raw) => {
        const port = typeof raw === 'object' && raw !== null && 'port' in raw ? (raw as { port: { url?: string } }).port.url : undefined;
        const s = await this.choose(a, 'Copy the address of which service?', (x) => !!x.url);
        await copy(port || s?.url);
      }),
      add('fairlead.copyDigest', async (a) => copy((await this.choose(a, 'Copy the digest of which service?', (x) => !!x.digest))?.digest)),
      add('fairlead.goTo', async (_, raw) => {
        const a = raw as { file: string; line: number; column: number; name: string };
        if (!(await this.logs.goTo(a.file, a.line, a.column, a.name))) void vscode.window.setStatusBarMessage(`$(info) ${a.file} is not in this workspace`, 5000);
      }),
      view('fairlead.logs.find', 'find'),
      view('fairlead.logs.filter', 'filter'),
      view('fairlead.logs.clear', 'clear'),
      view('fairlead.logs.toggleFollow', 'follow'),
      view('fairlead.logs.toggleTimestamps', 'timestamps'),
      view('fairlead.logs.copyAll', 'copy'),
    ];
  }

  private async run(a: Arg): Promise<void> {
    await save();
    const answer = await this.client.execute('fairlead.run', target(a));
    if (!vscode.workspace.getConfiguration('fairlead').get('logs.showOnRun', true)) return;
    const name = typeof answer === 'object' && answer !== null && 'name' in answer && typeof answer.name === 'string' ? answer.name : undefined;
    await this.logs.show(name, false);
  }

  /**
   * debug runs the service, so that this window holds it, and debugs it; one that runs already, by its name, is debugged as
   * it runs.
   */
  private async debug(a: Arg): Promise<void> {
    await save();
    const s = a.name ? this.client.services.services.find((x) => x.name === a.name) : undefined;
    if (s) {
      if (!this.debugging.focus(s)) await this.debugging.attach(s);
      return;
    }
    const arg = target(a);
    const answer = (await this.client.execute('fairlead.run', arg)) as Started;
    const known = this.client.services.services.find((x) => x.name === answer.name);
    if (!this.debugging.focus(known ?? { name: answer.name })) await this.debugging.launch(answer, arg);
  }

  private async debugTest(a: Arg): Promise<void> {
    if (!a.uri || !a.test) return;
    await save();
    await this.debugging.test(vscode.Uri.parse(a.uri), a.test);
  }

  private async debugCore(a: Arg): Promise<void> {
    const s = await this.choose(a, 'Open the core dump of which service?', (x) => !!x.core);
    const core = a.core ?? s?.core;
    if (s && core) await this.debugging.core(s, core);
  }

  /** debugChoice says what a save does while the service stands in the debugger; what is not said is asked for. */
  private async debugChoice(a: Arg): Promise<void> {
    const s = await this.choose(a, 'What waits for the debugger of which service?', (x) => x.debug !== undefined);
    if (!s) return;
    const choice = a.apply || a.on_save ? a : await this.debugging.ask(s);
    if (choice) await this.client.execute('fairlead.debugChoice', { name: s.name, ...(choice.on_save ? { on_save: choice.on_save } : {}), ...(choice.apply ? { apply: true } : {}) });
  }

  private async forService(a: Arg, command: string, ask: string, which: (s: Service) => boolean = () => true): Promise<void> {
    const s = await this.choose(a, ask, which);
    if (s) await this.client.execute(command, { name: s.name, ...(a.port ? { port: a.port } : {}) });
  }

  /** join follows an environment that somebody else made; which one is asked. */
  private async join(target?: JoinTarget): Promise<void> {
    let t = target;
    if (!t) {
      const text = await vscode.window.showInputBox({
        title: 'Fairlead: Join Environment', prompt: 'NAMESPACE/ENVIRONMENT, as fairlead env share prints it', placeHolder: 'shop/orders-ann-3f9c2a1b', ignoreFocusOut: true,
        validateInput: (v) => (v.trim() === '' || parseTarget(v) ? undefined : 'NAMESPACE/ENVIRONMENT, in small letters, digits and dashes'),
      });
      t = parseTarget(text ?? '');
    }
    if (!t) return;
    const answer = await this.client.execute('fairlead.join', t);
    const name = typeof answer === 'object' && answer !== null && 'name' in answer && typeof answer.name === 'string' ? answer.name : undefined;
    if (vscode.workspace.getConfiguration('fairlead').get('logs.showOnRun', true)) await this.logs.show(name, false);
  }

  /** link takes a link that was clicked, which may come from anywhere: the user sees what it names before anything is done. */
  private async link(uri: vscode.Uri): Promise<void> {
    const target = linkTarget(uri.path, uri.query);
    if (!target) throw new Error('this link names no environment: fairlead env share prints one that does');
    const join = 'Join';
    const detail = `It is looked for with your own rights, by your kubeconfig's context for ${target.cluster}, or the current one where none leads there. Its logs and its service come to this machine; nothing goes there.`;
    if ((await vscode.window.showInformationMessage(`Join the environment ${target.environment} in namespace ${target.namespace}?`, { modal: true, detail }, join)) === join) await this.join(target);
  }

  /**
   * dependency switches one between shared and fresh; what is lost by that is asked about. VS Code gives no row where the view
   * is just being drawn anew: the only one that can be meant is it then, else it is asked for.
   */
  private async dependency(a: Arg, want?: 'shared' | 'fresh'): Promise<void> {
    const can = (x: Service, d: Dependency): boolean => (want ? otherMode(x, d) === want : otherMode(x, d) !== '');
    const s = await this.choose(a, 'Switch a dependency of which service?', (x) => x.dependencies.some((d) => can(x, d)));
    const offered = s?.dependencies.filter((d) => can(s, d)) ?? [];
    let d = a.dependency ? offered.find((x) => x.name === a.dependency) : want && offered.length === 1 ? offered[0] : undefined;
    if (!s || (a.dependency && !d)) return;
    d ??= (await vscode.window.showQuickPick(offered.map((x) => ({ label: x.name, description: `${x.mode}; make it ${otherMode(s, x)}`, d: x })), { title: 'Fairlead', placeHolder: `Switch which dependency of ${s.service}?` }))?.d;
    if (!d) return;
    const mode = otherMode(s, d);
    const name = d.name;
    const detail = switchWarning(s, d);
    const go = mode === 'fresh' ? 'Make Fresh' : 'Remove the Copy';
    if (detail && (await vscode.window.showWarningMessage(mode === 'fresh' ? `Give ${s.service} a copy of ${name} of its own?` : `Share ${name} again?`, { modal: true, detail }, go)) !== go) return;
    await vscode.window.withProgress({ location: vscode.ProgressLocation.Notification, title: `Fairlead: ${s.service} gets ${name} ${mode}` }, () => this.client.execute('fairlead.dependency', { name: s.name, dependency: name, mode }));
  }

  /** keep lets an environment live for a time, used or not; how long is asked. */
  private async keep(a: Arg): Promise<void> {
    const s = await this.choose(a, 'Keep which environment?');
    if (!s) return;
    const offered = [
      { label: '$(watch) For 4 Hours', hours: 4 },
      { label: '$(watch) For a Day', hours: 24 },
      { label: '$(watch) For 3 Days', hours: 72 },
      ...(s.keep_until ? [{ label: '$(close) No Longer', hours: 0 }] : []),
    ];
    const picked = await vscode.window.showQuickPick(offered, { title: 'Fairlead', placeHolder: `${s.service} stays, used or not. Stop removes it all the same.` });
    if (picked) await this.client.execute('fairlead.keep', { name: s.name, hours: picked.hours });
  }

  private async cancel(a: Arg): Promise<void> {
    const s = await this.choose(a, 'Cancel what is under way for which service?', (x) => busy(x.phase));
    if (!s) return;
    const what = a.what ?? (s.phase === 'building' ? 'build' : s.phase === 'shipping' ? 'transfer' : 'environment');
    await this.client.execute('fairlead.cancel', { name: s.name, what });
  }

  /** choose is the named service, the active file's, the only one, or the user's choice. */
  private async choose(a: Arg, ask: string, which: (s: Service) => boolean = () => true): Promise<Service | undefined> {
    const services = this.client.services.services.filter(which);
    if (a.name) return this.client.services.services.find((s) => s.name === a.name);
    const own = serviceOf(services, activeFile());
    if (own && services.length > 1 && own.package && activeFile()?.startsWith(own.package)) return own;
    if (services.length <= 1) return services[0];
    const picked = await vscode.window.showQuickPick(
      services.map((s) => ({ label: `$(${icon(s)}) ${s.service}`, description: phaseText(s), detail: s.dir, service: s })),
      { title: 'Fairlead', placeHolder: ask },
    );
    return picked?.service;
  }

  private async restart(): Promise<void> {
    if (!vscode.workspace.isTrusted) return;
    // The agent is another process than the language server: while that one is there, it is asked to restart the agent.
    if (this.client.running) {
      try {
        await this.client.execute('fairlead.restartAgent', {});
        return;
      } catch (err) {
        this.client.out.warn(`restart: ${message(err)}`);
      }
    }
    await this.client.restart();
  }

  /** actions is what a click on the status bar offers. */
  private async actions(name?: string): Promise<void> {
    type Item = vscode.QuickPickItem & { do?: () => unknown };
    const { state, services: all } = this.client;
    const exec = (command: string, arg?: object) => () => vscode.commands.executeCommand(command, arg);
    const items: Item[] = [];
    const separate = (label: string): void => {
      items.push({ label, kind: vscode.QuickPickItemKind.Separator });
    };
    const own = all.services.filter((s) => s.name === name);
    for (const s of own.length > 0 ? own : all.services) {
      const arg = { name: s.name };
      separate(`${s.service}: ${phaseText(s)}`);
      if (s.url && isWeb(s.url)) items.push({ label: '$(globe) Open in Browser', description: s.url, do: exec('fairlead.open', arg) });
      items.push({ label: '$(output) Show Logs', description: s.service, do: exec('fairlead.logs', arg) });
      if (s.debug?.stopped) for (const c of choices(s)) items.push({ label: `$(${c.icon}) ${c.label}`, description: c.description, do: exec('fairlead.debugChoice', { ...arg, ...c.choice }) });
      if (!s.debug && !s.joined && s.phase !== 'ended' && s.phase !== 'stopping') items.push({ label: '$(debug-alt) Debug', description: s.service, do: exec('fairlead.debug', arg) });
      if (s.core) items.push({ label: '$(debug-console) Open Core Dump', description: s.core, do: exec('fairlead.debugCore', { ...arg, core: s.core }) });
      if (busy(s.phase) && s.phase !== 'stopping') items.push({ label: '$(close) Cancel', description: phaseText(s), do: exec('fairlead.cancel', arg) });
      if (s.joined && s.phase !== 'ended' && s.phase !== 'stopping') items.push({ label: '$(sign-out) Leave', description: `${s.owner} goes on with ${s.name}`, do: exec('fairlead.leave', arg) });
      else if (s.phase !== 'ended' && s.phase !== 'stopping') items.push({ label: '$(debug-stop) Stop', description: `removes ${s.name}`, do: exec('fairlead.stop', arg) });
      const refused = refusedCalls(s);
      for (const c of refused.slice(0, 5)) items.push({ label: `$(key) Request Access to ${c.method}`, description: `of ${c.callee}`, do: exec('fairlead.requestAccess', { ...arg, callee: c.callee, methods: [c.method] }) });
      const p = s.problems.find((x) => x.file);
      if (p) items.push({ label: '$(go-to-file) Go to Problem', description: p.message, do: exec('fairlead.goTo', { file: p.file, line: p.line ?? 1, column: p.column ?? 1, name: s.name }) });
    }
    separate(all.services.length > 0 ? 'Another' : '');
    if (state.state === 'running') {
      items.push({ label: '$(run) Run in Environment', description: 'the active file\'s service', do: exec('fairlead.run') });
      items.push({ label: '$(debug-alt) Debug in Environment', do: exec('fairlead.debug') });
      items.push({ label: '$(device-desktop) Run on This Machine', do: exec('fairlead.runLocal') }, { label: '$(cloud) Run on Kubernetes', do: exec('fairlead.runKubernetes') }, { label: '$(git-pull-request-draft) Create Draft Review', do: exec('fairlead.review') }, { label: '$(person-add) Join Environment...', description: 'a colleague\'s', do: exec('fairlead.join') });
    }
    separate('Fairlead');
    items.push(
      { label: '$(list-tree) Show Environments', do: exec('fairlead.environments.focus') },
      { label: '$(refresh) Restart Agent', ...(all.agent.version ? { description: all.agent.version } : {}), do: exec('fairlead.restartAgent') },
      { label: '$(terminal) Show Output', do: exec('fairlead.showOutput') },
      { label: '$(gear) Settings', do: exec('workbench.action.openSettings', '@ext:fairlead.fairlead' as unknown as object) },
    );
    const picked = await vscode.window.showQuickPick(items, { title: 'Fairlead', placeHolder: state.state === 'crashed' ? state.reason : 'What to do?', matchOnDescription: true });
    await picked?.do?.();
  }

  private async failed(err: unknown): Promise<void> {
    const text = message(err);
    this.client.out.error(text);
    // A user who cancelled knows.
    if (/cancell?ed/i.test(text)) return;
    const log = 'Show Output';
    if ((await vscode.window.showErrorMessage(text, log)) === log) this.client.out.show(true);
  }
}

function accessArg(a: Arg, raw: unknown): object {
  if (typeof raw === 'object' && raw !== null && 'callee' in raw) return raw;
  const call = typeof raw === 'object' && raw !== null && 'kind' in raw ? (raw as Node & { problem?: Problem }).problem?.call : undefined;
  return { ...(a.name ? { name: a.name } : {}), ...(call ? { callee: call.callee, methods: [call.method] } : {}) };
}

/** target is what a run or a debug session is of: what was said, else the active file, else the only folder. */
function target(a: Arg): Arg {
  const arg: Arg = { ...a };
  if (!arg.uri && !arg.dir && !arg.main) {
    const file = vscode.window.activeTextEditor?.document.uri;
    if (file?.scheme === 'file') arg.uri = file.toString();
    else if (vscode.workspace.workspaceFolders?.length === 1) arg.dir = vscode.workspace.workspaceFolders[0]!.uri.fsPath;
  }
  delete arg.name;
  return arg;
}

function activeFile(): string | undefined {
  const u = vscode.window.activeTextEditor?.document.uri;
  return u?.scheme === 'file' ? u.fsPath : undefined;
}

async function copy(text: string | undefined): Promise<void> {
  if (!text) return;
  await vscode.env.clipboard.writeText(text);
  vscode.window.setStatusBarMessage(`$(check) Copied ${text}`, 3000);
}

/** save writes what is edited: what runs is what is on disk. */
async function save(): Promise<void> {
  const edited = vscode.workspace.textDocuments.filter(
    (d) => d.isDirty && d.uri.scheme === 'file' && (d.languageId === 'go' || d.languageId === 'go.mod' || /[\\/]fairlead\.yaml$/.test(d.uri.path)) && vscode.workspace.getWorkspaceFolder(d.uri),
  );
  await Promise.all(edited.map((d) => d.save()));
}
