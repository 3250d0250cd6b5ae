// The smallest client of gopls: documents in, diagnostics and code lenses out.
const { spawn } = require('child_process');
const vscode = require('vscode');

exports.activate = async (context) => {
	const found = vscode.languages.createDiagnosticCollection('go');
	const status = vscode.window.createStatusBarItem('gopls', vscode.StatusBarAlignment.Right, 1);
	const log = vscode.window.createOutputChannel('gopls');
	const proc = spawn(vscode.workspace.getConfiguration('go').get('gopls'), ['serve'], { stdio: ['pipe', 'pipe', 'pipe'] });
	proc.stderr.on('data', (d) => log.append(String(d)));
	context.subscriptions.push(found, status, log, { dispose: () => proc.kill() });

	let last = 0, rest = Buffer.alloc(0);
	const waiting = new Map();
	const send = (message) => {
		const body = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...message }));
		proc.stdin.write(Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]));
	};
	const request = (method, params) => new Promise((done, no) => { waiting.set(++last, { done, no }); send({ id: last, method, params }); });
	const range = (r) => new vscode.Range(r.start.line, r.start.character, r.end.line, r.end.character);
	const receive = (m) => {
		if (m.method && m.id !== undefined) { // gopls asks: for its configuration, or to show progress
			send({ id: m.id, result: m.method === 'workspace/configuration' ? m.params.items.map(() => null) : null });
		} else if (m.method === 'textDocument/publishDiagnostics') {
			found.set(vscode.Uri.parse(m.params.uri), m.params.diagnostics.map((d) => {
				const out = new vscode.Diagnostic(range(d.range), d.message, d.severity - 1);
				out.source = d.source;
				out.code = d.codeDescription ? { value: d.code, target: vscode.Uri.parse(d.codeDescription.href) } : d.code;
				return out;
			}));
		} else if (m.method === 'window/logMessage' || m.method === 'window/showMessage') {
			log.appendLine(m.params.message);
		} else if (waiting.has(m.id)) {
			const { done, no } = waiting.get(m.id);
			waiting.delete(m.id);
			if (m.error) no(new Error(m.error.message));
			else done(m.result);
		}
	};
	proc.stdout.on('data', (d) => {
		rest = Buffer.concat([rest, d]);
		for (;;) {
			const end = rest.indexOf('\r\n\r\n');
			if (end < 0) return;
			const n = Number(/content-length: *(\d+)/i.exec(rest.subarray(0, end).toString())[1]);
			if (rest.length < end + 4 + n) return;
			const body = rest.subarray(end + 4, end + 4 + n);
			rest = rest.subarray(end + 4 + n);
			receive(JSON.parse(body));
		}
	});

	const folder = vscode.workspace.workspaceFolders[0];
	await request('initialize', { processId: process.pid, rootUri: String(folder.uri), workspaceFolders: [{ uri: String(folder.uri), name: folder.name }], capabilities: {} });
	send({ method: 'initialized', params: {} });
	const go = (d) => d.languageId === 'go' && d.uri.scheme === 'file';
	const open = (d) => go(d) && send({ method: 'textDocument/didOpen', params: { textDocument: { uri: String(d.uri), languageId: 'go', version: d.version, text: d.getText() } } });
	vscode.workspace.textDocuments.forEach(open);
	context.subscriptions.push(
		vscode.workspace.onDidOpenTextDocument(open),
		vscode.workspace.onDidCloseTextDocument((d) => go(d) && send({ method: 'textDocument/didClose', params: { textDocument: { uri: String(d.uri) } } })),
		vscode.workspace.onDidSaveTextDocument((d) => go(d) && send({ method: 'textDocument/didSave', params: { textDocument: { uri: String(d.uri) } } })),
		vscode.workspace.onDidChangeTextDocument((e) => go(e.document) && send({
			method: 'textDocument/didChange',
			params: { textDocument: { uri: String(e.document.uri), version: e.document.version }, contentChanges: [{ text: e.document.getText() }] },
		})),
		vscode.languages.registerCodeLensProvider('go', {
			async provideCodeLenses(d) {
				const lenses = await request('textDocument/codeLens', { textDocument: { uri: String(d.uri) } }) ?? [];
				return lenses.filter((l) => l.command).map((l) => new vscode.CodeLens(range(l.range), l.command));
			},
		}),
	);
	status.text = 'gopls ready';
	status.show();
};
