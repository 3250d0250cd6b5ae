// The go command and gopls find the same error: this drops ours where another extension shows an error on the same line
// in the same words, and brings it back when that one goes.

import * as vscode from 'vscode';
import { same, type Finding } from './same';

const finding = (d: vscode.Diagnostic): Finding => ({
  line: d.range.start.line, column: d.range.start.character, error: d.severity === vscode.DiagnosticSeverity.Error, message: d.message, source: d.source ?? '',
});

type Next = (uri: vscode.Uri, diagnostics: vscode.Diagnostic[]) => void;

export class Duplicates implements vscode.Disposable {
  private ours = new Map<string, { all: vscode.Diagnostic[]; shown: vscode.Diagnostic[]; next: Next }>();
  private readonly listener: vscode.Disposable;

  constructor() {
    this.listener = vscode.languages.onDidChangeDiagnostics((e) => {
      for (const uri of e.uris) this.show(uri);
    });
  }

  /** handle is the language client's middleware for diagnostics. */
  handle = (uri: vscode.Uri, all: vscode.Diagnostic[], next: Next): void => {
    const key = uri.toString();
    if (all.length === 0) {
      this.ours.delete(key);
      next(uri, all);
      return;
    }
    const known = this.ours.get(key);
    this.ours.set(key, { all, shown: known?.shown ?? [], next });
    this.show(uri, true);
  };

  /** clear forgets what a language server said that is gone. */
  clear(): void {
    this.ours.clear();
  }

  private show(uri: vscode.Uri, always = false): void {
    const o = this.ours.get(uri.toString());
    if (!o) return;
    const others = vscode.languages.getDiagnostics(uri).map(finding);
    // What is ours in that list is what we showed last: each takes one equal one away.
    for (const d of o.shown.map(finding)) {
      const i = others.findIndex((x) => x.line === d.line && x.column === d.column && x.source === d.source && x.message === d.message);
      if (i >= 0) others.splice(i, 1);
    }
    const shown = o.all.filter((d) => !others.some((x) => same(finding(d), x)));
    if (!always && shown.length === o.shown.length && shown.every((d, i) => d === o.shown[i])) return;
    o.shown = shown;
    o.next(uri, shown);
  }

  dispose(): void {
    this.listener.dispose();
  }
}
