// The language client: it starts `fairlead lsp`, and starts it again when it ends, waiting longer from time to time,
// with the reason where the user sees it. One LanguageClient object per process: nothing of a dead server's remains.

import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, constants, accessSync, existsSync } from 'node:fs';
import * as path from 'node:path';
import * as vscode from 'vscode';
import {
  CloseAction, ErrorAction, ExecuteCommandRequest, LanguageClient, MessageType, RevealOutputChannelOn, ShowMessageRequest, State,
  type DynamicFeature, type InitializeParams, type ClientCapabilities, type LanguageClientOptions, type MessageActionItem, type StaticFeature,
} from 'vscode-languageclient/node';
import { openBeside } from './beside';
import { Duplicates } from './duplicates';
import { accessMethod, servicesMethod, toAccess, toServices, type Access, type Options, type Services } from './protocol';
import { isWeb, short, type Client as ClientState } from './text';

const none: Services = { agent: { connected: false }, services: [] };

const firstWait = 500;
const longestWait = 30_000;
/** A server that ran this long did work: the next wait is the first again. */
const settled = 30_000;
/** So many ends in a row without having settled, and it is left alone until somebody asks. */
const enough = 6;

/** Client draws nothing: it is the one place that knows whether the agent's process is there and what it said last. */
export class Client implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChange = this.changed.event;
  state: ClientState = { state: 'stopped' };
  services: Services = none;

  private client: Quiet | undefined;
  private attempt = 0;
  private timer: NodeJS.Timeout | undefined;
  private wanted = false;
  private asking = 0;
  private readonly duplicates = new Duplicates();

  constructor(
    private readonly context: vscode.ExtensionContext,
    readonly out: vscode.LogOutputChannel,
  ) {}

  /** start starts the server if none is there or on its way. */
  async start(): Promise<void> {
    if (this.wanted && (this.client || this.timer)) return;
    this.wanted = true;
    this.attempt = 0;
    await this.launch();
  }

  /** restart starts a new server, also after the last one was given up. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async stop(): Promise<void> {
    this.wanted = false;
    clearTimeout(this.timer);
    this.timer = undefined;
    const client = this.client;
    this.client = undefined;
    this.duplicates.clear();
    if (client) {
      // A server that is still starting cannot be asked to leave; ending its process ends the start too.
      if (client.state === State.Running) await client.stop(3000).catch(() => {});
      client.process?.kill();
      await client.dispose().catch(() => {});
    }
    this.services = none;
    this.set({ state: 'stopped' });
  }

  get running(): boolean {
    return this.state.state === 'running';
  }

  /** execute asks the server to carry out a command; the server chooses what the argument does not say. */
  async execute(command: string, arg: object): Promise<unknown> {
    const client = await this.ready();
    this.asking++;
    try {
      return await client.sendRequest(ExecuteCommandRequest.type, { command, arguments: [arg] });
    } finally {
      this.asking--;
    }
  }

  async access(name: string): Promise<Access> {
    const client = this.client;
    if (!client || !this.running) throw new Error('the agent is not there');
    return toAccess(await client.sendRequest(accessMethod, { name }));
  }

  /** configure tells the server of settings that changed. */
  configure(): void {
    if (this.client && this.running) void this.client.sendNotification('workspace/didChangeConfiguration', { settings: { fairlead: options() } });
  }

  private async ready(): Promise<LanguageClient> {
    if (!vscode.workspace.isTrusted) throw new Error('this folder is not trusted: nothing is run in it');
    if (!this.client) await this.start();
    const client = this.client;
    if (!client) throw new Error(this.state.state === 'crashed' ? this.state.reason : 'the agent is not there');
    await client.start();
    return client;
  }

  private set(state: ClientState): void {
    this.state = state;
    this.changed.fire();
  }

  private async launch(): Promise<void> {
    this.timer = undefined;
    let said: string[] = [];
    let exit = '';
    let over = false;
    const started = Date.now();
    this.set({ state: 'starting' });

    let command: string;
    try {
      command = agentPath(this.context);
    } catch (err) {
      this.set({ state: 'crashed', reason: message(err) });
      this.wanted = false;
      return;
    }
    const serve = async (): Promise<ChildProcess> => {
      const cwd = vscode.workspace.workspaceFolders?.find((f) => f.uri.scheme === 'file')?.uri.fsPath;
      this.out.info(`starting ${command} lsp`);
      const p = spawn(command, ['lsp'], { cwd, stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true });
      p.stderr.setEncoding('utf8').on('data', (s: string) => {
        said = [...said, ...s.split('\n').filter((l) => l.trim() !== '')].slice(-20);
      });
      p.on('exit', (code, signal) => {
        exit = signal ? `was ended by ${signal}` : `ended with code ${code}`;
      });
      client.process = p;
      await new Promise<void>((resolve, reject) => {
        p.once('spawn', resolve);
        p.once('error', reject);
      });
      return p;
    };
    const ended = async (err?: unknown): Promise<void> => {
      if (over || this.client !== client) return;
      over = true;
      this.client = undefined;
      this.services = none;
      this.duplicates.clear();
      // The exit comes a moment after the pipe's end, and says why.
      for (let i = 0; i < 20 && exit === '' && client.process?.pid && client.process.exitCode === null; i++) await new Promise((r) => setTimeout(r, 25));
      client.process?.kill();
      void client.dispose().catch(() => {});
      const reason = why(said) || (exit ? `the agent's language server ${exit}` : message(err ?? 'the agent\'s language server ended'));
      this.out.error(reason);
      if (!this.wanted) return;
      this.attempt = Date.now() - started > settled ? 0 : this.attempt + 1;
      if (this.attempt >= enough) {
        this.wanted = false;
        this.set({ state: 'crashed', reason });
        const again = 'Restart Agent';
        const log = 'Show Output';
        const chosen = await vscode.window.showErrorMessage(`Fairlead does not start: ${reason}`, again, log);
        if (chosen === again) await this.restart();
        if (chosen === log) this.out.show();
        return;
      }
      const retryMs = Math.min(firstWait * 2 ** this.attempt, longestWait);
      this.set({ state: 'crashed', reason, retryMs });
      this.timer = setTimeout(() => void this.launch(), retryMs);
    };

    const settings: LanguageClientOptions = {
      documentSelector: [
        { scheme: 'file', language: 'go' },
        { scheme: 'file', language: 'yaml', pattern: '**/fairlead.yaml' },
      ],
      initializationOptions: options,
      outputChannel: this.out,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      // The window's own place for progress shows what is under way; nothing pops up at the start.
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => {
          void ended();
          return { action: CloseAction.DoNotRestart, handled: true };
        },
      },
      middleware: {
        handleDiagnostics: this.duplicates.handle,
        window: {
          // A page that is no file is shown beside the code where the server does not want it outside.
          showDocument: async (params, token, next) => {
            if (params.external || !isWeb(params.uri)) return next(params, token);
            const { getCommands, executeCommand } = vscode.commands;
            await openBeside(params.uri, vscode.Uri.parse(params.uri, true), vscode.ViewColumn.Beside, { all: () => getCommands(true), run: executeCommand });
            return { success: true };
          },
        },
      },
    };
    const client = new Quiet('fairlead', 'Fairlead', serve, settings);
    this.client = client;
    client.registerFeature(new Experimental());
    client.onNotification(servicesMethod, (params: unknown) => {
      if (this.client !== client) return;
      this.services = toServices(params);
      this.changed.fire();
    });
    client.onRequest(ShowMessageRequest.type, (params) => this.ask(params.type, params.message, params.actions ?? []));
    try {
      await client.start();
      if (this.client === client) this.set({ state: 'running' });
    } catch (err) {
      await ended(err);
    }
  }

  /** ask shows a question of the server: as a list where the user has just asked for something, else as a notification. */
  private async ask(type: MessageType, text: string, actions: MessageActionItem[]): Promise<MessageActionItem | null> {
    if (this.asking > 0 && actions.length > 1 && type !== MessageType.Error && type !== MessageType.Warning) {
      const picked = await vscode.window.showQuickPick(actions.map((a) => ({ label: a.title, action: a })), { title: 'Fairlead', placeHolder: text });
      return picked?.action ?? null;
    }
    const show = type === MessageType.Error ? vscode.window.showErrorMessage : type === MessageType.Warning ? vscode.window.showWarningMessage : vscode.window.showInformationMessage;
    return (await show(text, ...actions)) ?? null;
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.duplicates.dispose();
    this.changed.dispose();
  }
}

/** Quiet is a LanguageClient that raises no notifications of its own and leaves commands to the extension. */
class Quiet extends LanguageClient {
  process: ChildProcess | undefined;

  override registerFeature(feature: StaticFeature | DynamicFeature<unknown>): void {
    // It would register the server's commands as VS Code's, which exist only while a server runs. Ours exist always,
    // add what the editor knows (the active file), and start a server if need be.
    if ('registrationType' in feature && feature.registrationType.method === ExecuteCommandRequest.method) return;
    super.registerFeature(feature);
  }

  override error(text: string, data?: unknown, show?: boolean | 'force'): void {
    super.error(text, data, show === 'force' ? false : show);
  }
}

class Experimental implements StaticFeature {
  fillClientCapabilities(capabilities: ClientCapabilities): void {
    capabilities.experimental = { ...(capabilities.experimental as object | undefined), fairlead: true };
    capabilities.workspace = { ...capabilities.workspace, executeCommand: { dynamicRegistration: false } };
  }
  fillInitializeParams(params: InitializeParams): void {
    // The server leaves when its editor is gone, also when the editor could not say so.
    params.processId = process.pid;
  }
  initialize(): void {}
  getState(): { kind: 'static' } {
    return { kind: 'static' };
  }
  clear(): void {}
}

/** options are the settings that the server takes. */
export function options(): Options {
  const c = vscode.workspace.getConfiguration('fairlead');
  return {
    openBrowser: c.get('openBrowser', 'always'),
    on: c.get('on', ''),
    codeLens: c.get('codeLens', true),
    trusted: vscode.workspace.isTrusted,
    // In a browser the editor's own pages have an address that any site could have, and the portal lets nobody frame it.
    beside: vscode.env.uiKind === vscode.UIKind.Desktop,
  };
}

/** agentPath is the setting's, else the agent that came with the extension, else the one in PATH. */
export function agentPath(context: vscode.ExtensionContext): string {
  const set = vscode.workspace.getConfiguration('fairlead').get('agentPath', '').trim();
  if (set !== '') {
    const file = set.startsWith('~/') ? path.join(process.env.HOME ?? '', set.slice(2)) : set;
    if (path.isAbsolute(file) && !existsSync(file)) throw new Error(`fairlead.agentPath: there is no ${file}`);
    return file;
  }
  const name = process.platform === 'win32' ? 'fairlead.exe' : 'fairlead';
  const own = context.asAbsolutePath(path.join('bin', name));
  if (existsSync(own)) {
    if (process.platform !== 'win32') {
      try {
        accessSync(own, constants.X_OK);
      } catch {
        chmodSync(own, 0o755); // some ways of installing lose the mode
      }
    }
    return own;
  }
  for (const dir of (process.env.PATH ?? '').split(path.delimiter)) {
    if (path.isAbsolute(dir) && existsSync(path.join(dir, name))) return path.join(dir, name);
  }
  throw new Error('this build of the extension carries no agent: set fairlead.agentPath');
}

/** why finds the reason in what the server wrote before it ended. */
function why(lines: string[]): string {
  const error = lines.findLast((l) => /^fairlead: (error|hint)?/.test(l) && !/^fairlead: hint/.test(l)) ?? lines.findLast((l) => /^(panic|fatal error):/.test(l)) ?? lines.at(-1);
  return error ? short(error.replace(/^fairlead: (error: )?/, ''), 200) : '';
}

export const message = (err: unknown): string => (err instanceof Error ? err.message : String(err));
