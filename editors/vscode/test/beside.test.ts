// Where a form is shown, in a VS Code with a browser of its own and in one without. The latter is tried in the real workbench too.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openBeside } from '../src/beside';

test('a page beside the code', async () => {
  const open = async (all: string[]): Promise<unknown[]> => {
    const ran: unknown[] = [];
    await openBeside('http://127.0.0.1:1/a#b', 'parsed', 'column', { all: () => Promise.resolve(all), run: (...args) => Promise.resolve(ran.push(args)) });
    return ran;
  };
  assert.deepEqual(await open(['workbench.action.browser.open', 'simpleBrowser.api.open']), [['workbench.action.browser.open', { url: 'http://127.0.0.1:1/a#b', openToSide: true }]]);
  assert.deepEqual(await open(['simpleBrowser.show']), [['simpleBrowser.api.open', 'parsed', { viewColumn: 'column', preserveFocus: false }]]);
});
