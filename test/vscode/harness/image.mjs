// An image of one static executable, built here and pushed to the test cluster's registry: nothing is pulled from elsewhere.
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { cluster } from './machine.mjs';

/** pushProgram builds a Go main package of one file and returns the reference of an image that runs it. */
export async function pushProgram(m, name, source) {
	const dir = m.path(`image-${name}`);
	fs.mkdirSync(dir);
	fs.writeFileSync(path.join(dir, 'go.mod'), `module example.com/${name}\n\ngo 1.24\n`);
	fs.writeFileSync(path.join(dir, 'main.go'), source);
	execFileSync('go', ['build', '-trimpath', '-ldflags=-s -w', '-o', 'program', '.'], { cwd: dir, env: { ...m.env, CGO_ENABLED: '0', GOOS: 'linux' }, stdio: 'pipe' });
	const layer = tar('program', fs.readFileSync(path.join(dir, 'program')));
	const config = Buffer.from(JSON.stringify({
		architecture: { x64: 'amd64', arm64: 'arm64' }[process.arch], os: 'linux',
		config: { Entrypoint: ['/program'], User: '65532:65532' },
		rootfs: { type: 'layers', diff_ids: [digest(layer)] },
	}));
	const blob = (mediaType, b) => ({ mediaType: `application/vnd.oci.image.${mediaType}`, digest: digest(b), size: b.length });
	for (const b of [layer, config]) {
		const begun = await call('POST', `/v2/${name}/blobs/uploads/`);
		const to = new URL(begun.headers.get('location'), `http://${cluster.registry}`);
		to.searchParams.set('digest', digest(b));
		await call('PUT', to.pathname + to.search, b, 'application/octet-stream');
	}
	const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config: blob('config.v1+json', config), layers: [blob('layer.v1.tar', layer)] }));
	await call('PUT', `/v2/${name}/manifests/${digest(manifest)}`, manifest, 'application/vnd.oci.image.manifest.v1+json');
	return `${cluster.registry}/${name}@${digest(manifest)}`;
}

const digest = (b) => `sha256:${crypto.createHash('sha256').update(b).digest('hex')}`;

async function call(method, at, body, type) {
	const r = await fetch(`http://${cluster.registry}${at}`, { method, body, headers: type ? { 'Content-Type': type } : {} });
	if (!r.ok) throw new Error(`${method} ${at}: ${r.status} ${await r.text()}`);
	return r;
}

/** tar is an archive (POSIX ustar) of one executable file. */
function tar(name, data) {
	const head = Buffer.alloc(512);
	const octal = (n, at, length) => head.write(`${n.toString(8).padStart(length - 1, '0')}\0`, at);
	head.write(name, 0);
	octal(0o755, 100, 8);
	octal(0, 108, 8);
	octal(0, 116, 8);
	octal(data.length, 124, 12);
	octal(0, 136, 12);
	head.write('        0', 148); // the sum is of spaces; '0' is a file
	head.write('ustar\x0000', 257);
	octal(head.reduce((a, b) => a + b, 0), 148, 7);
	return Buffer.concat([head, data, Buffer.alloc(512 - (data.length % 512 || 512)), Buffer.alloc(1024)]);
}
