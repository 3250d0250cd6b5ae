import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Fairlead } from './harness/fairlead.mjs';
import { commit } from './harness/service.mjs';
import { onMachine } from './harness/test.mjs';
import { eventually, freePort } from './harness/wait.mjs';
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
