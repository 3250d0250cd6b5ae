import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Namespace } from './harness/cluster.mjs';
import { Fairlead } from './harness/fairlead.mjs';
import { pushProgram } from './harness/image.mjs';
import { cluster, Machine } from './harness/machine.mjs';
import { commit } from './harness/service.mjs';
import { onCluster, onMachine } from './harness/test.mjs';
import { eventually, freePort, patience } from './harness/wait.mjs';
import { CodeServer, Workbench } from './harness/workbench.mjs';

/** main is a service that answers with its greeting and with what the service at CALLS answers. */
const main = (greeting) => `package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	port := flag.String("port", "", "")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "${greeting}")
		if addr := os.Getenv("CALLS"); addr != "" {
			resp, err := http.Get("http://" + addr)
			if err != nil {
				fmt.Fprint(w, err)
				return
			}
			defer resp.Body.Close()
			io.Copy(w, resp.Body)
		}
	})
	panic(http.ListenAndServe(":"+*port, nil))
}
`;

onMachine('dependencies in the editor', 'dependencies', async (m, step) => {
	const dir = m.path('shop');
	const services = { front: 'front one;', billing: 'billing one;' };
	for (const [name, greeting] of Object.entries(services)) {
		fs.mkdirSync(path.join(dir, 'cmd', name), { recursive: true });
		fs.writeFileSync(path.join(dir, 'cmd', name, `${name}.go`), main(greeting));
	}
	fs.writeFileSync(path.join(dir, 'go.mod'), 'module example.com/shop\n\ngo 1.24\n');
	fs.writeFileSync(path.join(dir, 'fairlead.yaml'), `version: 1
services:
  front:
    main: ./cmd/front
    args: [-port, "${await freePort()}"]
    env: {CALLS: "{{billing}}"}
    dependencies: {billing: shared, search: shared}
  billing:
    main: ./cmd/billing
    args: [-port, "${await freePort()}"]
`);
	commit(dir);
	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never', 'fairlead.logs.showOnRun': false } }), dir);
	const f = new Fairlead(wb);
	const now = async () => {
		const p = m.run(path.join(dir, 'cmd', 'front'), 'status', '--json');
		await p.ended;
		return (await fetch(p.text.split('\n').filter(Boolean).map((l) => JSON.parse(l)).find((s) => s.service === 'front').url)).text();
	};

	await step('one press runs the service and what it calls', async () => {
		await wb.openFile('cmd/front/front.go');
		await f.state('Fairlead: run');
		await f.runButton.click();
		await f.state(/front: live/);
		await eventually('both answer', async () => (await now()) === 'front one;billing one;');
	});
	await step('the tree shows each dependency and how it is', async () => {
		await f.environments();
		await f.row('shared · ready').waitFor();
		await f.row(/shared · failed: nothing says how it is run/).waitFor();
		await wb.shot('tree');
	});
	await step('a save of the dependency is live for the service', async () => {
		await wb.openFile('cmd/billing/billing.go');
		await wb.replaceLine(wb.lineOf('cmd/billing/billing.go', 'billing one'), '\t\tfmt.Fprint(w, "billing two;")');
		await eventually('the new one answers', async () => (await now()) === 'front one;billing two;');
	});
	await step('a click keeps the environment', async () => {
		await f.environments();
		await f.act(/Used by(?!.*front \()/, 'Keep Environment');
		await wb.quick.locator('.monaco-list-row', { hasText: 'For a Day' }).first().click();
		await f.row(/kept until/).waitFor();
		await wb.shot('kept', { readme: 'vscode-dependencies' });
	});
	await step('Stop removes it all the same, and its dependencies', async () => {
		await f.act(/^front/, 'Stop Environment');
		await f.state('Fairlead: run');
		await eventually('nothing runs', () => m.supervisors().length === 0);
		assert.deepEqual(m.services(), []);
	});
});

/** stage makes a Deployment and a Service of staging, held to Pod Security's "restricted". */
async function stage(ns, name, image, { port, replicas, env = [] }) {
	const labels = { app: name };
	await ns.call('POST', `/apis/apps/v1/namespaces/${ns.name}/deployments`, {
		metadata: { name },
		spec: {
			replicas, selector: { matchLabels: labels },
			template: {
				metadata: { labels },
				spec: {
					terminationGracePeriodSeconds: 1,
					securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: 'RuntimeDefault' } },
					containers: [{
						name, image, env, args: ['-port', `${port}`], ports: [{ containerPort: port }],
						readinessProbe: { tcpSocket: { port }, periodSeconds: 1 },
						securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
					}],
				},
			},
		},
	});
	await ns.call('POST', `/api/v1/namespaces/${ns.name}/services`, { metadata: { name }, spec: { selector: labels, ports: [{ port }] } });
}

onCluster('dependencies and a colleague, in a cluster', 'shared', async (m, step) => {
	const ns = await Namespace.create(m);
	const image = await pushProgram(m, 'vscode-standin', main('stand-in;'));
	// What stands in for Redis only has its name and port.
	await stage(ns, 'redis', image, { port: 6379, replicas: 1 });
	await stage(ns, 'orders', image, { port: 8080, replicas: 0, env: [{ name: 'CALLS', value: 'redis:6379' }] });
	const write = (machine, greeting) => {
		const dir = machine.path('orders');
		fs.mkdirSync(dir);
		fs.writeFileSync(path.join(dir, 'go.mod'), 'module example.com/orders\n\ngo 1.24\n');
		fs.writeFileSync(path.join(dir, 'main.go'), main(greeting));
		fs.writeFileSync(path.join(dir, 'fairlead.yaml'), `version: 1\non: kubernetes\nkubernetes:\n  kubeconfig: ${cluster.kubeconfig}\n  namespace: ${ns.name}\n  registry: ${cluster.registry}\n`);
		commit(dir);
		return dir;
	};
	const dir = write(m, 'mine;');
	m.env.KUBECONFIG = cluster.kubeconfig;
	const wb = await Workbench.open(m, await CodeServer.start(m, { extra: { 'fairlead.openBrowser': 'never', 'fairlead.logs.showOnRun': false } }), dir);
	const f = new Fairlead(wb);
	const services = async (machine, where) => {
		const p = machine.run(where, 'status', '--json');
		await p.ended;
		return p.text.split('\n').filter(Boolean).map((l) => JSON.parse(l));
	};
	const answers = async (which) => (await fetch((await services(m, dir)).find(which).url)).text();
	// The colleague's comes up while the steps before it go on.
	const ann = new Machine('colleague');
	m.cleanup(() => ann.close());
	let run;
	const dialog = (text) => wb.page.locator('.monaco-dialog-box', { hasText: text });

	await step('the tree shows the dependency of staging', async () => {
		await wb.openFile('main.go');
		await f.state('Fairlead: run');
		await f.runButton.click();
		await f.state(/orders: live/);
		await f.environments();
		await f.row(/redis.*shared.*ready/).waitFor();
		await eventually('both answer', async () => (await answers(() => true)) === 'mine;stand-in;');
		run = ann.run(write(ann, 'hers;'), 'run');
	});
	await step('a click gives the environment a copy of its own', async () => {
		await f.act(/^redis/, 'Make Fresh');
		await f.row(/redis.*fresh.*ready/).waitFor();
		await f.state(/orders: live/);
		await eventually('both answer', async () => (await answers(() => true)) === 'mine;stand-in;');
		assert.equal((await ns.copies()).length, 1);
		await wb.shot('fresh');
	});
	await step('another shares it again, once it is said that the copy goes', async () => {
		await f.act(/^redis/, 'Share Again');
		await dialog('removed, with its data').waitFor();
		await wb.shot('share-again');
		await dialog('').locator('.monaco-button', { hasText: 'Remove the Copy' }).click();
		await f.row(/redis.*shared.*ready/).waitFor();
		await f.state(/orders: live/);
	});
	await step('a colleague\'s environment is joined, and left as it is', async () => {
		const [hers] = await eventually('hers is live', async () => {
			const all = await services(ann, ann.root);
			return all[0]?.url && (await fetch(all[0].url)).ok && all;
		}, 2 * patience);
		const shared = ann.run(ann.root, 'env', 'share', '--json');
		await shared.ended;
		// As if the link were clicked: VS Code asks whether it may be opened, we ask what it means.
		await wb.palette('Developer: Open URL');
		await wb.quick.locator('.quick-input-message', { hasText: 'URL' }).waitFor();
		const input = wb.quick.locator('input.input');
		await input.fill(JSON.parse(shared.text).link);
		await input.press('Enter');
		await dialog('to open this URI').locator('.monaco-button', { hasText: 'Open' }).click();
		await dialog(`Join the environment ${hers.name} in namespace ${hers.namespace}?`).waitFor();
		await wb.shot('join-link');
		await dialog('').locator('.monaco-button', { hasText: 'Join' }).click();
		await f.environments();
		await f.row(/orders.*joined.*live/).waitFor();
		await f.row(/^Of .*followed from here/).waitFor();
		await eventually('hers answers here', async () => (await answers((s) => s.name === hers.name)) === 'hers;stand-in;');
		await wb.shot('joined');
		await f.act(/orders.*joined/, 'Leave Environment');
		await f.row(/joined/).waitFor({ state: 'detached' });
		assert.equal(await (await fetch(hers.url)).text(), 'hers;stand-in;');
		run.proc.kill('SIGINT');
		await run.ended;
	});
	await step('Stop removes it', async () => {
		await f.act(/^orders/, 'Stop Environment');
		await f.state('Fairlead: run');
		await ns.wantNothing();
	});
}, { timeout: 10 * 60_000 });
