import assert from 'node:assert/strict';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { here, tools } from './harness/machine.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

onMachine('beside gopls', 'gopls', async (m, step) => {
	const dir = m.path('greeter');
	writeService(dir, { port: await freePort() });
	const server = await CodeServer.start(m, {
		extensions: [path.join(here, 'golang.go')],
		extra: { 'fairlead.openBrowser': 'never', 'go.gopls': path.join(tools, 'gopls/gopls') },
	});
	const wb = await Workbench.open(m, server, dir);
	const f = new Fairlead(wb);
	const problems = (n) => wb.page.locator('#status\\.problems', { hasText: new RegExp(`^\\s*${n}\\s*0\\s*$`) }).waitFor();

	await step('both are at work', async () => {
		await wb.openFile('main.go');
		await wb.page.locator('.statusbar-item', { hasText: 'gopls ready' }).waitFor();
		await f.runButton.click();
		await f.state(/greeter: live/);
		await problems(0);
	});
	await step('what both find is shown once', async () => {
		await wb.replaceLine(wb.lineOf('main.go', 'const greeting'), 'const greeting = 1 + "x"', { save: false });
		await problems(1); // gopls sees it before it is saved
		await wb.save();
		await f.state(/failed: main.go/);
		await f.lens(/failed/); // comes after the diagnostics of the same build
		await problems(1);
		assert.equal(await wb.squiggle().count(), 1);
		await wb.palette('Problems: Focus on Problems View');
		await wb.page.locator('.markers-panel .monaco-list-row', { hasText: 'mismatched types' }).first().waitFor();
		assert.equal(await wb.page.locator('.markers-panel .monaco-list-row', { hasText: 'mismatched types' }).count(), 1);
		await wb.shot('once');
	});
	await step('mended, both are content', async () => {
		await wb.focusEditor();
		await wb.replaceLine(wb.lineOf('main.go', 'const greeting'), 'const greeting = "mended"');
		await f.state(/greeter: live in .*s/);
		await problems(0);
	});
	await step('lenses are not doubled', async () => {
		const lens = wb.page.locator('.codelens-decoration a', { hasText: 'Logs' });
		await lens.first().waitFor();
		assert.equal(await lens.count(), 1);
	});
});
