// A page beside the code. VS Code on a desktop has a browser of its own since 1.109, which its Simple Browser leads to, but without the
// side: so it is asked itself where it is there.

export interface Commands {
  all(): PromiseLike<string[]>;
  run(command: string, ...args: unknown[]): PromiseLike<unknown>;
}

const integrated = 'workbench.action.browser.open';

/** openBeside shows a web page beside the code. parsed and column are what Simple Browser takes of VS Code's own kinds. */
export async function openBeside(url: string, parsed: unknown, column: unknown, commands: Commands): Promise<void> {
  if ((await commands.all()).includes(integrated)) await commands.run(integrated, { url, openToSide: true });
  else await commands.run('simpleBrowser.api.open', parsed, { viewColumn: column, preserveFocus: false });
}
