import { Namespace } from './harness/cluster.mjs';
import { debugLoop } from './harness/debugloop.mjs';
import { cluster } from './harness/machine.mjs';
import { aTest, debugged, writeService } from './harness/service.mjs';
import { onCluster, onMachine } from './harness/test.mjs';
import { freePort } from './harness/wait.mjs';

const limit = { timeout: 15 * 60_000 }; // a dozen builds

onMachine('debugging on this machine', 'debug', async (m, step) => {
	const dir = m.path('greeter'), port = await freePort();
	writeService(dir, { port, files: { 'main.go': debugged(port), 'main_test.go': aTest } });
	await debugLoop(m, step, { dir, readme: (name) => ({ readme: name }) });
}, limit);

onCluster('debugging in a cluster', 'debug-cluster', async (m, step) => {
	const ns = await Namespace.create(m);
	const dir = m.path('greeter');
	const yaml = `version: 1\non: kubernetes\nkubernetes:\n  kubeconfig: ${cluster.kubeconfig}\n  namespace: ${ns.name}\n  registry: ${cluster.registry}\n`;
	writeService(dir, { port: 8080, yaml, files: { 'main.go': debugged(8080), 'main_test.go': aTest } });
	await debugLoop(m, step, { dir });
	await ns.wantNothing();
}, limit);
