import fs from 'node:fs';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

onMachine('fairlead.yaml in the editor', 'settings', async (m, step) => {
	const dir = m.path('greeter');
	writeService(dir, { port: await freePort(), yaml: 'version: 1\nkubernetes:\n  \ngrace: 1s\nport: many\n',
		files: { '.vscode/launch.json': '{\n  "version": "0.2.0",\n  "configurations": [{\n    "type": "fairlead", "request": "launch", "name": "mine",\n    \n  }]\n}\n' } });
	const wb = await Workbench.open(m, await CodeServer.start(m), dir);
	const f = new Fairlead(wb);
	const suggestion = (text) => wb.page.locator('.suggest-widget.visible .monaco-list-row', { hasText: text }).first();

	await step('a wrong value is marked', async () => {
		await wb.openFile('fairlead.yaml');
		await f.state(/Fairlead/);
		await wb.squiggle().first().waitFor();
		await wb.goTo(5, 8);
		await wb.palette('Show or Focus Hover');
		await wb.hover(/1 to 65535|number/).waitFor();
		await wb.shot('wrong');
		await wb.page.keyboard.press('Escape');
	});
	await step('the marked value is mended', async () => {
		await wb.replaceLine(5, 'port: 8080');
		await wb.squiggle().first().waitFor({ state: 'detached' });
	});
	await step('keys are completed where they belong', async () => {
		await wb.goTo(3, 3);
		await wb.page.keyboard.press('Control+Space');
		await suggestion('namespace').waitFor();
		await suggestion('registry').waitFor();
		await wb.shot('completion');
		await suggestion('namespace').click();
		await wb.page.keyboard.press('Escape');
		await wb.save();
		if (!/^ {2}namespace:/m.test(fs.readFileSync(path.join(dir, 'fairlead.yaml'), 'utf8'))) throw new Error('the key was not written');
	});
	await step('launch.json completes what the debug adapter reads', async () => {
		await wb.openFile('launch.json');
		await wb.goTo(5, 5);
		await wb.page.keyboard.press('Control+Space');
		await suggestion('coreFilePath').waitFor();
		await suggestion('hideSystemGoroutines').waitFor();
		await wb.shot('launch');
		await wb.page.keyboard.press('Escape');
		await wb.openFile('fairlead.yaml');
	});
	await step('a key explains itself', async () => {
		await wb.goTo(4, 2);
		await wb.palette('Show or Focus Hover');
		await wb.hover(/SIGTERM/).waitFor();
		await wb.shot('hover');
	});
});
