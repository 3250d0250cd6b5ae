import * as vscode from 'vscode';
import type { Client } from './client';
import { refusedCalls } from './protocol';
import { details, escape, shown, status } from './text';

/** StatusBar is the item at the bottom: the state in a few words, the rest in its tooltip, actions on a click. */
export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem('fairlead.status', vscode.StatusBarAlignment.Left, 100);

  constructor(private readonly client: Client) {
    this.item.name = 'Fairlead';
    this.draw();
    this.item.show();
  }

  draw(): void {
    const { client, item } = this;
    const file = vscode.window.activeTextEditor?.document.uri;
    const path = file?.scheme === 'file' ? file.fsPath : undefined;
    const s = status(client.state, client.services, path);
    item.text = s.text;
    item.accessibilityInformation = { label: s.label, role: 'button' };
    item.backgroundColor = s.tone === 'plain' ? undefined : new vscode.ThemeColor(`statusBarItem.${s.tone}Background`);
    // Where nothing runs a click runs it: from an opened folder to a live service is one action.
    const idle = client.running && client.services.agent.connected && client.services.services.length === 0;
    item.command = client.state.state === 'untrusted' ? 'workbench.trust.manage' : idle ? 'fairlead.run' : 'fairlead.showActions';
    item.tooltip = this.tooltip(path);
  }

  private tooltip(file: string | undefined): vscode.MarkdownString {
    const { client } = this;
    const md = new vscode.MarkdownString('', true);
    // Only these, so that nothing an agent or a compiler says can run a command.
    md.isTrusted = { enabledCommands: ['fairlead.run', 'fairlead.logs', 'fairlead.open', 'fairlead.stop', 'fairlead.leave', 'fairlead.debug', 'fairlead.debugChoice', 'fairlead.requestAccess', 'fairlead.restartAgent', 'fairlead.showOutput'] };
    const link = (title: string, command: string, arg?: object): string =>
      `[${title}](command:${command}${arg ? '?' + encodeURIComponent(JSON.stringify([arg])) : ''})`;
    if (client.state.state === 'untrusted') return md.appendMarkdown('This folder is not trusted: Fairlead runs nothing in it. Click to manage trust.');
    if (client.state.state === 'crashed') {
      md.appendMarkdown(`$(error) ${escape(client.state.reason)}\n\n`);
      if (client.state.retryMs) md.appendMarkdown('It is started again in a moment.\n\n');
      return md.appendMarkdown(`${link('Restart agent', 'fairlead.restartAgent')} · ${link('Show output', 'fairlead.showOutput')}`);
    }
    const { agent, services } = client.services;
    if (client.state.state === 'running' && !agent.connected && agent.problem) {
      md.appendMarkdown(`$(debug-disconnect) ${escape(agent.problem.message)}\n\n`);
      if (agent.problem.hint) md.appendMarkdown(`$(lightbulb) ${escape(agent.problem.hint)}\n\n`);
      return md.appendMarkdown(`${link('Restart agent', 'fairlead.restartAgent')} · ${link('Show output', 'fairlead.showOutput')}`);
    }
    const first = shown(services, file);
    if (!first) return md.appendMarkdown(`Nothing runs. ${link('Run in environment', 'fairlead.run')}${agent.version ? `\n\nAgent ${escape(agent.version)}` : ''}`);
    for (const s of [first, ...services.filter((x) => x !== first)].slice(0, 4)) {
      md.appendMarkdown(details(s) + '\n\n');
      const arg = { name: s.name };
      const links = [link('Logs', 'fairlead.logs', arg)];
      if (refusedCalls(s).length > 0) links.unshift(link('Request access', 'fairlead.requestAccess', arg));
      if (s.url) links.unshift(link('Open in browser', 'fairlead.open', arg));
      if (s.debug?.waiting) links.unshift(link('Swap now', 'fairlead.debugChoice', { ...arg, apply: true }));
      else if (!s.debug && !s.joined && s.phase !== 'ended' && s.phase !== 'stopping') links.push(link('Debug', 'fairlead.debug', arg));
      if (s.phase !== 'ended') links.push(s.joined ? link('Leave', 'fairlead.leave', arg) : link('Stop', 'fairlead.stop', arg));
      md.appendMarkdown(links.join(' · ') + '\n\n');
    }
    return md;
  }

  dispose(): void {
    this.item.dispose();
  }
}
