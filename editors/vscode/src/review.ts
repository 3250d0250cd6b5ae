// The draft review: what the agent's plan says is drawn, and what the user picks of it goes back. Nothing is decided here, and
// nothing is done before the last list is accepted: Escape at any step leaves all as it is.

import * as vscode from 'vscode';
import { message, type Client } from './client';
import { toReviewPlan, type ReviewPlan } from './protocol';
import { changeText, reviewNotes, reviewRows, reviewTitle } from './text';

/** review plans, asks, and has made what was agreed to. */
export async function review(client: Client, from: unknown): Promise<void> {
  if (!(await saved())) return;
  const plan = toReviewPlan(await client.execute('fairlead.reviewPlan', workTree(from)));
  const notes = reviewNotes(plan);
  if (notes) void vscode.window.showInformationMessage(`Fairlead: ${notes}`);
  const commit = await pickFiles(plan);
  const asked = commit && (await pickReviewers(plan, commit.message));
  if (!asked) return;
  try {
    await client.execute('fairlead.reviewCreate', { dir: plan.dir, state: plan.state, base: plan.base, ...commit, ...asked });
  } catch (err) {
    if (codeOf(err) !== 'review-changed') throw err;
    const again = 'Look Again';
    if ((await vscode.window.showWarningMessage(message(err), again)) === again) await review(client, from);
  }
}

/** saved has the user say what becomes of text that is not on the disk: git sees what is. */
async function saved(): Promise<boolean> {
  const edited = vscode.workspace.textDocuments.filter((d) => d.isDirty && d.uri.scheme === 'file' && vscode.workspace.getWorkspaceFolder(d.uri));
  if (edited.length === 0) return true;
  const save = edited.length === 1 ? 'Save It' : 'Save All';
  const leave = 'Go On Without';
  const text = edited.length === 1 ? `${vscode.workspace.asRelativePath(edited[0]!.uri)} is not saved.` : `${edited.length} files are not saved.`;
  const answer = await vscode.window.showWarningMessage(text, { modal: true, detail: 'A review is of what is on the disk.' }, save, leave);
  if (answer === save) return (await Promise.all(edited.map((d) => d.save()))).every(Boolean);
  return answer === leave;
}

/** workTree is what is meant: the repository whose title was clicked, else the active file's, else the only folder's. The agent asks for what is open then. */
function workTree(from: unknown): { dir?: string; uri?: string } {
  if (typeof from === 'object' && from !== null) {
    const root = (from as { rootUri?: unknown }).rootUri;
    if (root instanceof vscode.Uri && root.scheme === 'file') return { dir: root.fsPath };
  }
  const file = vscode.window.activeTextEditor?.document.uri;
  if (file?.scheme === 'file' && vscode.workspace.getWorkspaceFolder(file)) return { uri: file.toString() };
  const folders = vscode.workspace.workspaceFolders ?? [];
  return folders.length === 1 ? { dir: folders[0]!.uri.fsPath } : {};
}

/** pickFiles asks what is to be committed; undefined: the user has left. */
async function pickFiles(plan: ReviewPlan): Promise<{ files?: string[]; message?: string } | undefined> {
  const rows = plan.changes.filter((c) => c.kind !== 'submodule').map((c) => ({ label: c.path, description: changeText(c), picked: c.picked }));
  if (rows.length === 0) return {};
  const title = reviewTitle(plan);
  let placeHolder = plan.commits > 0 ? 'Which of these are committed for it? With none ticked, only what is committed already is reviewed' : 'Which of these are committed for it?';
  let files: string[];
  do {
    const picked = await vscode.window.showQuickPick(rows, { title, placeHolder, canPickMany: true, ignoreFocusOut: true });
    if (!picked) return undefined;
    files = picked.map((p) => p.label);
    placeHolder = 'Tick one at least: nothing is committed yet that could be reviewed';
  } while (files.length === 0 && plan.commits === 0);
  if (files.length === 0) return {};
  const text = await vscode.window.showInputBox({
    title, value: plan.message, ignoreFocusOut: true, prompt: files.length === 1 ? `The message of the commit of ${files[0]}` : `The message of the commit of ${files.length} files`,
    validateInput: (v) => (v.trim() === '' ? 'Say in a line what changes and why' : undefined),
  });
  return text === undefined ? undefined : { files, message: text };
}

/** pickReviewers asks who is to be asked, and is where the user says yes; undefined: the user has left. */
async function pickReviewers(plan: ReviewPlan, typed?: string): Promise<{ reviewers: string[]; teams: string[] } | undefined> {
  const title = reviewTitle(plan, typed);
  const rows = reviewRows(plan);
  if (rows.length === 0) {
    const go = { label: `$(git-pull-request-draft) ${plan.existing ? 'Update the Review' : 'Create the Draft'}`, detail: plan.title };
    const yes = await vscode.window.showQuickPick([go], { title, placeHolder: 'Nobody is known here who could be asked for a review', ignoreFocusOut: true });
    return yes && { reviewers: [], teams: [] };
  }
  const picked = await vscode.window.showQuickPick(rows, {
    title, placeHolder: 'Who is asked for a review? With none ticked, nobody is', canPickMany: true, ignoreFocusOut: true, matchOnDescription: true, matchOnDetail: true,
  });
  return picked && { reviewers: picked.flatMap((r) => r.login ?? []), teams: picked.flatMap((r) => r.team ?? []) };
}

/** codeOf is the problem's code that the agent sends beside its words. */
function codeOf(err: unknown): string {
  const data = typeof err === 'object' && err !== null ? (err as { data?: unknown }).data : undefined;
  const code = typeof data === 'object' && data !== null ? (data as { code?: unknown }).code : undefined;
  return typeof code === 'string' ? code : '';
}
