import { debugLoop } from './harness/debugloop.mjs';
import { debugged, writeService } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';

onMachine('debugging on this machine', 'debug', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port, files: { 'main.go': debugged(port) } });
	await debugLoop(m, step, { dir, ask: async (what) => (await fetch(`http://127.0.0.1:${port}/${what}`)).text(), readme: (name) => ({ readme: name }) });
}, { timeout: 15 * 60_000 }); // a dozen builds
