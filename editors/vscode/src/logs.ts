// The log view's host side: it reads the journal of the service that is shown and hands it to the page, a bounded run
// at a time; it opens what the page's links name.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import * as vscode from 'vscode';
import { Backlog } from './backlog';
import type { Client } from './client';
import { Journal, type JournalState, type Position } from './journal';
import { find, type Roots } from './links';
import { fromView, type FromView, type ToView, type ViewCommand } from './messages';
import type { Service } from './protocol';
import { isWeb } from './text';

/** So many runs may be on their way to the page; the rest waits in the backlog. */
const inFlight = 2;

export class Logs implements vscode.WebviewViewProvider, vscode.Disposable {
  static readonly id = 'fairlead.logs';
  private view: vscode.WebviewView | undefined;
  private ready = false;
  private journal: Journal | undefined;
  private backlog: Backlog;
  private stream = 0;
  private sent = 0;
  private current = '';
  private position: Position = { after: 0, journal: '' };
  private state: ToView & { type: 'state' } = { type: 'state', state: 'none', text: '' };
  private goEnv: Promise<{ GOROOT?: string; GOMODCACHE?: string }> | undefined;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly client: Client,
  ) {
    this.backlog = new Backlog(maxLines());
    // The service that was shown before the window was reloaded.
    this.current = context.workspaceState.get('logs.service', '');
  }

  /** show brings the view up with a service's lines; without a name it stays with what it shows. */
  async show(name: string | undefined, focus: boolean): Promise<void> {
    if (name && name !== this.current) this.select(name);
    if (this.view) this.view.show(!focus);
    else {
      // The first time there is only a command for it, which takes the focus along.
      await vscode.commands.executeCommand('fairlead.logs.focus');
      if (!focus) await vscode.commands.executeCommand('workbench.action.focusActiveEditorGroup');
    }
    if (focus) this.view?.show(false);
  }

  command(command: ViewCommand): void {
    this.post({ type: 'command', command });
  }

  /** draw tells the page which services there are, and follows one that has come back. */
  draw(): void {
    if (!this.view) return;
    const { services } = this.client.services;
    const now = services.find((s) => s.name === this.current);
    if (!now && services.length > 0 && (this.current === '' || !this.journal)) {
      this.select(services[0]!.name);
      return;
    }
    this.tell();
    if (now && now.phase !== 'ended') {
      if (!this.journal) this.read(true);
      else this.journal.wake();
    } else if (!now) {
      // The page says "ended" by itself once the journal's end has come.
      if (this.state.state === 'connecting' || this.state.state === 'lost') this.end();
    }
  }

  settings(): void {
    this.backlog.limit(maxLines());
    this.tell();
  }

  private tell(): void {
    this.post({
      type: 'services',
      services: this.client.services.services.map((s) => ({ name: s.name, label: s.service, phase: s.phase })),
      current: this.current,
      maxLines: maxLines(),
    });
  }

  private select(name: string): void {
    this.current = name;
    void this.context.workspaceState.update('logs.service', name);
    this.stop();
    if (!this.view) return;
    this.tell();
    this.read(false);
  }

  private stop(): void {
    this.journal?.stop();
    this.journal = undefined;
    this.backlog.clear();
    this.stream++;
    this.sent = 0;
  }

  private end(): void {
    this.journal?.stop();
    this.journal = undefined;
    this.setState('ended', '');
  }

  private read(keep: boolean): void {
    const { current: name } = this;
    this.journal?.stop();
    this.journal = undefined;
    // Going on below what is shown, a journal that is still the same gives what it has not given yet, and another one
    // says that it is another.
    if (!keep) {
      this.position = { after: 0, journal: '' };
      this.begin();
    }
    if (!this.client.services.services.some((s) => s.name === name)) {
      this.setState('none', '');
      return;
    }
    const journal = new Journal(() => this.client.access(name), {
      text: (text) => {
        this.backlog.push(text);
        this.flush();
      },
      restarted: () => this.backlog.push('{"mark":"another journal"}\n'),
      state: (s) => {
        if (this.journal !== journal) return;
        if (s.state === 'ended') this.journal = undefined;
        this.setState(s.state, s.state === 'lost' ? s.reason : '');
      },
    }, this.position);
    this.journal = journal;
    journal.start();
  }

  /** begin empties the page for another journal. */
  private begin(): void {
    this.backlog.clear();
    this.stream++;
    this.sent = 0;
    this.post({ type: 'begin', stream: this.stream, name: this.current });
  }

  private setState(state: JournalState['state'] | 'none', text: string): void {
    this.state = { type: 'state', state, text };
    this.post(this.state);
  }

  private flush(): void {
    // A hidden page takes nothing: what comes meanwhile waits here, as much as the page would keep.
    while (this.ready && this.view?.visible && this.sent < inFlight && this.backlog.size > 0) this.send();
  }

  private send(): void {
    const run = this.backlog.take();
    if (!run) return;
    this.sent++;
    this.post({ type: 'texts', stream: this.stream, ...run });
  }

  private post(m: ToView): void {
    if (this.view && this.ready) void this.view.webview.postMessage(m);
  }

  resolveWebviewView(view: vscode.WebviewView): void {
    this.view = view;
    this.ready = false;
    const { webview } = view;
    const dist = vscode.Uri.joinPath(this.context.extensionUri, 'dist');
    webview.options = { enableScripts: true, enableCommandUris: false, enableForms: false, localResourceRoots: [dist] };
    const mine = [
      webview.onDidReceiveMessage((v: unknown) => {
        const m = fromView(v);
        if (m) void this.receive(m);
      }),
      view.onDidChangeVisibility(() => this.flush()),
      view.onDidDispose(() => {
        for (const d of mine) d.dispose();
        if (this.view !== view) return;
        this.view = undefined;
        this.ready = false;
        this.stop();
      }),
    ];
    webview.html = page(webview, dist);
  }

  private async receive(m: FromView): Promise<void> {
    switch (m.type) {
      case 'ready':
        // A page that was loaded anew is empty: the journal is read from its beginning.
        this.ready = true;
        this.stop();
        if (this.current === '' || !this.client.services.services.some((s) => s.name === this.current)) {
          const first = this.client.services.services[0];
          if (first) this.current = first.name;
        }
        this.tell();
        this.read(false);
        return;
      case 'taken':
        if (m.stream !== this.stream) return;
        this.sent = Math.max(0, this.sent - 1);
        this.flush();
        return;
      case 'select':
        if (m.name !== this.current && this.client.services.services.some((s) => s.name === m.name)) this.select(m.name);
        return;
      case 'url':
        if (isWeb(m.url)) await vscode.env.openExternal(vscode.Uri.parse(m.url, true));
        return;
      case 'copy':
        await vscode.env.clipboard.writeText(m.text);
        return;
      case 'access':
        await vscode.commands.executeCommand('fairlead.requestAccess', { name: this.current, callee: m.callee, methods: [m.method] });
        return;
      case 'run':
        await vscode.commands.executeCommand('fairlead.run');
        return;
      case 'open':
        if (!(await this.goTo(m.file, m.line, m.column, this.current))) this.post({ type: 'notice', text: `${m.file} is not in this workspace, its modules or Go itself` });
    }
  }

  /** goTo opens a file that a log line or a problem names, and says whether there is one. */
  async goTo(file: string, line: number, column: number, name: string): Promise<boolean> {
    if (!vscode.workspace.isTrusted) return false;
    const s = this.client.services.services.find((x) => x.name === name);
    let found = await find(file, this.roots(s));
    if (!found) {
      this.goEnv ??= goEnv(s?.module ?? vscode.workspace.workspaceFolders?.[0]?.uri.fsPath);
      const { GOROOT, GOMODCACHE } = await this.goEnv;
      found = await find(file, { ...this.roots(s), ...(GOROOT ? { goroot: GOROOT } : {}), ...(GOMODCACHE ? { modcache: GOMODCACHE } : {}) });
    }
    found ??= await this.byName(file, s);
    if (!found) return false;
    const at = new vscode.Position(Math.max(0, line - 1), 0);
    const doc = await vscode.workspace.openTextDocument(vscode.Uri.file(found));
    // A column counts bytes; the editor counts UTF-16.
    const row = Math.min(at.line, doc.lineCount - 1);
    const text = doc.lineAt(row).text;
    const character = column > 1 ? Buffer.from(text, 'utf8').subarray(0, column - 1).toString('utf8').length : text.length - text.trimStart().length;
    await vscode.window.showTextDocument(doc, { selection: new vscode.Range(row, character, row, character), preserveFocus: false });
    return true;
  }

  /** byName looks for a bare file name, as log.Lshortfile writes it, and asks if there are several. */
  private async byName(file: string, s: Service | undefined): Promise<string | undefined> {
    if (/[\\/]/.test(file) || !/^[\w.-]+\.go$/.test(file)) return undefined;
    const base = s?.module ?? vscode.workspace.workspaceFolders?.[0]?.uri.fsPath;
    if (!base) return undefined;
    const all = await vscode.workspace.findFiles(new vscode.RelativePattern(vscode.Uri.file(base), `**/${file}`), '**/{node_modules,.git}/**', 20);
    if (all.length <= 1) return all[0]?.fsPath;
    const picked = await vscode.window.showQuickPick(
      all.map((u) => ({ label: vscode.workspace.asRelativePath(u), path: u.fsPath })).sort((a, b) => (a.label < b.label ? -1 : 1)),
      { title: file, placeHolder: 'Several files have this name' },
    );
    return picked?.path;
  }

  private roots(s: Service | undefined): Roots {
    const folders = (vscode.workspace.workspaceFolders ?? []).filter((f) => f.uri.scheme === 'file').map((f) => f.uri.fsPath);
    return { folders: s?.dir ? [...folders, s.dir] : folders, ...(s?.package ? { package: s.package } : {}), ...(s?.module ? { module: s.module } : {}) };
  }

  dispose(): void {
    this.journal?.stop();
  }
}

const maxLines = (): number => Math.min(1_000_000, Math.max(1000, vscode.workspace.getConfiguration('fairlead').get('logs.maxLines', 200_000)));

async function goEnv(cwd: string | undefined): Promise<{ GOROOT?: string; GOMODCACHE?: string }> {
  try {
    const { stdout } = await promisify(execFile)('go', ['env', '-json', 'GOROOT', 'GOMODCACHE'], { cwd, timeout: 10_000 });
    return JSON.parse(stdout) as { GOROOT?: string; GOMODCACHE?: string };
  } catch {
    return {};
  }
}

function page(webview: vscode.Webview, dist: vscode.Uri): string {
  const nonce = randomBytes(16).toString('base64');
  const uri = (name: string): string => webview.asWebviewUri(vscode.Uri.joinPath(dist, name)).toString();
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-${nonce}'; style-src ${webview.cspSource};">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${uri('logs.css')}">
<title>Logs</title>
</head>
<body>
<script nonce="${nonce}" src="${uri('logs.js')}"></script>
</body>
</html>`;
}
