import * as vscode from 'vscode';
import type { Client } from './client';
import { busy, type Dependency, type Forward, type Problem, type Service } from './protocol';
import { debugText, dependencyText, keptText, details, icon, isWeb, otherMode, phaseText, place, reviewText, short, shortDigest, tone, where } from './text';

export type Node =
  | { kind: 'service'; service: Service }
  | { kind: 'url' | 'owner' | 'generation' | 'where' | 'process' | 'debug' | 'clients' | 'template' | 'review'; service: Service }
  | { kind: 'port'; service: Service; port: Forward }
  | { kind: 'dependency'; service: Service; dependency: Dependency }
  | { kind: 'problem'; service: Service; problem: Problem; index: number };

const color = (s: Service): vscode.ThemeColor | undefined => {
  if (busy(s.phase)) return undefined;
  if (s.phase === 'live') return new vscode.ThemeColor('testing.iconPassed');
  return new vscode.ThemeColor({ error: 'list.errorForeground', warning: 'list.warningForeground', plain: 'icon.foreground' }[tone(s)]);
};

/** Environments is the tree: what the agent says of each service, as rows. */
export class Environments implements vscode.TreeDataProvider<Node>, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<undefined>();
  readonly onDidChangeTreeData = this.changed.event;
  readonly view: vscode.TreeView<Node>;

  constructor(private readonly client: Client) {
    this.view = vscode.window.createTreeView('fairlead.environments', { treeDataProvider: this, showCollapseAll: false });
  }

  draw(): void {
    const { agent, services } = this.client.services;
    this.changed.fire(undefined);
    const p = this.client.running && !agent.connected ? agent.problem : undefined;
    this.view.message = p ? `No agent: ${p.message}${p.hint ? `. To mend it: ${p.hint}` : ''}` : '';
    const problems = services.reduce((n, s) => n + s.problems.length, 0);
    this.view.badge = problems > 0 ? { value: problems, tooltip: problems === 1 ? '1 problem in an environment' : `${problems} problems in environments` } : undefined;
  }

  getChildren(node?: Node): Node[] {
    if (!node) return this.client.running ? this.client.services.services.map((service) => ({ kind: 'service', service })) : [];
    if (node.kind !== 'service') return [];
    const s = node.service;
    const out: Node[] = s.problems.map((problem, index) => ({ kind: 'problem', service: s, problem, index }));
    if (s.url) out.push({ kind: 'url', service: s });
    if (s.review) out.push({ kind: 'review', service: s });
    if (s.joined) out.push({ kind: 'owner', service: s });
    for (const port of s.ports) if (!port.main || port.url !== s.url) out.push({ kind: 'port', service: s, port });
    for (const dependency of s.dependencies) if (dependency.mode !== 'off') out.push({ kind: 'dependency', service: s, dependency });
    if (s.generation > 0) out.push({ kind: 'generation', service: s });
    if (s.provider) out.push({ kind: 'where', service: s });
    if (s.template) out.push({ kind: 'template', service: s });
    if (s.process) out.push({ kind: 'process', service: s });
    if (s.debug) out.push({ kind: 'debug', service: s });
    if (s.clients.length > 0 || s.keep_until) out.push({ kind: 'clients', service: s });
    return out;
  }

  getTreeItem(node: Node): vscode.TreeItem {
    const s = node.service;
    const item = new vscode.TreeItem('');
    item.id = `${s.name}/${node.kind}`;
    const icon_ = (id: string, c?: vscode.ThemeColor): void => {
      item.iconPath = new vscode.ThemeIcon(id, c);
    };
    switch (node.kind) {
      case 'service': {
        item.label = s.service;
        item.description = s.joined ? `joined · ${phaseText(s)}` : phaseText(s);
        item.collapsibleState = vscode.TreeItemCollapsibleState.Expanded;
        icon_(icon(s), color(s));
        item.tooltip = new vscode.MarkdownString(details(s), true);
        item.contextValue = ['service', s.phase === 'ended' ? 'ended' : s.joined ? 'joined' : 'running', busy(s.phase) ? 'busy' : 'idle', s.joined ? '' : s.debug ? 'debugged' : 'debuggable', s.debug?.waiting ? 'waiting' : '', s.core ? 'core' : '', s.url ? 'url' : '', s.digest ? 'digest' : ''].filter(Boolean).join(' ');
        break;
      }
      case 'url':
        item.label = s.url!.replace(/^https?:\/\//, '');
        item.description = mainPort(s);
        item.contextValue = 'url';
        item.tooltip = `Open ${s.url} in the browser`;
        item.command = { title: 'Open in Browser', command: 'fairlead.open', arguments: [{ name: s.name }] };
        icon_('globe');
        break;
      case 'review': {
        const r = s.review!;
        item.label = reviewText(r);
        item.description = short(r.title, 80);
        item.contextValue = 'review';
        item.tooltip = [r.title, r.url].filter(Boolean).join('\n');
        if (isWeb(r.url)) item.command = { title: 'Open in Browser', command: 'vscode.open', arguments: [vscode.Uri.parse(r.url, true)] };
        icon_(r.draft ? 'git-pull-request-draft' : 'git-pull-request');
        break;
      }
      case 'owner':
        item.label = `Of ${s.owner || 'somebody else'}`;
        item.description = 'followed from here';
        item.tooltip = 'What its owner saves is live here. Nothing of this window goes there, and leaving it changes nothing.';
        icon_('account');
        break;
      case 'port':
        item.id += `/${node.port.port}`;
        item.label = node.port.url.replace(/^https?:\/\//, '') || `127.0.0.1:${node.port.local}`;
        item.description = `port ${node.port.port}`;
        item.contextValue = 'port';
        item.tooltip = `Port ${node.port.port} of the service, on this machine at 127.0.0.1:${node.port.local}`;
        icon_('plug');
        break;
      case 'dependency': {
        const d = node.dependency;
        item.id += `/${d.name}`;
        item.label = d.name;
        item.description = dependencyText(d);
        const to = otherMode(s, d);
        item.contextValue = to ? `dependency to-${to}` : 'dependency';
        item.tooltip = [d.name, [d.engine, d.workload].filter(Boolean).join(' · '), ...d.why.map((w) => `Found in ${w}`)].filter(Boolean).join('\n');
        const look: Record<string, [string, string?]> = { ready: ['pass', 'testing.iconPassed'], starting: ['loading~spin'], failed: ['error', 'list.warningForeground'] };
        const [id, c] = look[d.health] ?? ['circle-large-outline'];
        icon_(id, c ? new vscode.ThemeColor(c) : undefined);
        break;
      }
      case 'generation':
        item.label = `Generation ${s.generation}`;
        item.description = s.digest ? shortDigest(s.digest) : '';
        item.contextValue = s.digest ? 'generation digest' : 'generation';
        item.tooltip = s.digest ? `The pod says that it runs ${s.digest}` : 'What the pod says that it runs';
        icon_('versions');
        break;
      case 'where': {
        const w = where(s);
        item.label = w.label;
        item.description = w.description;
        item.contextValue = 'where';
        item.tooltip = [w.label, w.description, s.name].filter(Boolean).join('\n');
        icon_(s.provider === 'local' ? 'device-desktop' : 'cloud');
        break;
      }
      case 'template':
        item.label = 'Made after';
        item.description = s.template!;
        icon_('file-symlink-file');
        break;
      case 'process':
        item.label = `Process ${s.process}`;
        item.description = [s.pid ? `pid ${s.pid}` : '', s.exit_code === undefined ? '' : `exit code ${s.exit_code}`].filter(Boolean).join(' · ');
        icon_('server-process');
        break;
      case 'debug':
        item.label = 'Debugger';
        item.description = debugText(s);
        item.tooltip = s.debug!.by;
        icon_(s.debug!.stopped ? 'debug-pause' : 'debug-alt');
        break;
      case 'clients':
        item.label = 'Used by';
        item.description = [keptText(s), ...s.clients].filter(Boolean).join(', ');
        item.tooltip = s.joined ? 'It is its owner\'s, and stays when nobody here follows it' : s.keep || s.keep_until ? 'It stays when nobody uses it any more' : 'It is removed a minute after the last one leaves';
        item.contextValue = s.keep_until ? 'use kept' : 'use';
        icon_('person');
        break;
      case 'problem': {
        const p = node.problem;
        item.id += `/${node.index}`;
        item.label = short(p.message, 120);
        item.description = place(p);
        item.contextValue = p.link && p.call ? 'problem refused' : 'problem';
        item.tooltip = p.hint ? `${p.message}\n\nTo mend it: ${p.hint}` : p.message;
        const warning = p.severity !== undefined && p.severity !== '' && p.severity !== 'error';
        icon_(warning ? 'warning' : 'error', new vscode.ThemeColor(warning ? 'list.warningForeground' : 'list.errorForeground'));
        if (p.file) item.command = { title: 'Go to', command: 'fairlead.goTo', arguments: [{ file: p.file, line: p.line ?? 1, column: p.column ?? 1, name: s.name }] };
        break;
      }
    }
    item.accessibilityInformation = { label: [item.label as string, item.description as string].filter(Boolean).join(', ') };
    return item;
  }

  dispose(): void {
    this.view.dispose();
    this.changed.dispose();
  }
}

function mainPort(s: Service): string {
  const main = s.ports.find((p) => p.url === s.url) ?? s.ports.find((p) => p.main);
  return main ? `port ${main.port}` : '';
}
