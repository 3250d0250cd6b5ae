import assert from 'node:assert/strict';
import { Fairlead } from './harness/fairlead.mjs';
import { writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

// The README's steps for somebody who has nothing of Fairlead: no executable on the PATH, no settings, no payload but
// what the extension carries.
onMachine('a newcomer: install, open, button, live', 'newcomer', async (m, step, t) => {
	const dir = m.path('greeter');
	writeService(dir, { port: await freePort() });
	delete m.env.FAIRLEAD_PAYLOAD;
	const actions = [];
	let wb, f, installed, live;

	await step('install the extension, open the folder', async () => {
		actions.push('install');
		const server = await CodeServer.start(m, { agent: undefined });
		installed = server.installed;
		actions.push('open the folder');
		wb = await Workbench.open(m, server, dir);
		f = new Fairlead(wb);
	});
	await step('one click makes it live', async () => {
		await f.status.waitFor();
		await wb.shot('opened');
		actions.push('click');
		const clicked = Date.now();
		const site = await wb.popup(() => f.firstClick());
		try {
			await site.locator('h1', { hasText: 'hello' }).waitFor();
			live = Date.now() - clicked;
		} finally {
			await site.close();
			await wb.page.bringToFront();
		}
		await f.state(/greeter: live/);
		await wb.shot('live');
		t.diagnostic(`actions: ${actions.join(', ')}; installed in ${installed} ms, the service's page ${live} ms after the click`);
		assert.ok(actions.length <= 3, `${actions.length} actions`);
	});
});
