import assert from 'node:assert/strict';
import fs from 'node:fs';
import { Fairlead } from './harness/fairlead.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

onMachine('an untrusted folder', 'trust', async (m, step) => {
	const dir = m.path('greeter');
	// What a stranger's repository could bring: a path to a program of its own.
	writeService(dir, { port: await freePort(), files: { '.vscode/settings.json': `{"fairlead.agentPath": "${dir}/evil.sh"}`, 'evil.sh': `#!/bin/sh\ntouch ${dir}/evil-ran\n` } });
	const wb = await Workbench.open(m, await CodeServer.start(m, { restrict: true, extra: { 'fairlead.openBrowser': 'never' } }), dir);
	const f = new Fairlead(wb);
	const ours = () => m.processes().filter((p) => /fairlead|evil/.test(`${p.exe} ${p.argv.slice(0, 3).join(' ')}`) && !p.cmdline.includes('code-server'));

	await step('nothing is run before trust is granted', async () => {
		await wb.openFile('main.go');
		await f.state(/restricted/);
		assert.equal(await f.runButton.count(), 0);
		assert.equal(await f.debugButton.count(), 0);
		await wb.goTo(3);
		// The editor is at rest: what would have been started has been.
		await wb.page.locator('.statusbar-item', { hasText: 'Activating Extensions' }).waitFor({ state: 'detached' });
		assert.deepEqual(ours().map((p) => p.argv), []);
		await wb.shot('restricted');
	});
	await step('and nothing is debugged', async () => {
		await wb.focusEditor();
		await wb.page.keyboard.press('F5'); // VS Code asks before it debugs
		await wb.page.locator('.monaco-dialog-box').waitFor();
		await wb.page.keyboard.press('Escape');
		await wb.page.locator('.monaco-dialog-box').waitFor({ state: 'detached' });
		assert.deepEqual(ours().map((p) => p.argv), []);
	});
	await step('with trust it works', async () => {
		await f.status.locator('a').click();
		await wb.page.locator('.workspace-trust-editor .monaco-button', { hasText: 'Trust' }).first().click();
		await wb.page.locator('.monaco-modal-editor-block .codicon-close').last().click(); // it lies over the window
		await wb.page.locator('.workspace-trust-editor').waitFor({ state: 'detached' });
		await f.state('Fairlead: run');
		await f.runButton.click();
		await f.state(/greeter: live/);
		assert.equal(fs.existsSync(`${dir}/evil-ran`), false, 'a repository chose what is run');
	});
});
