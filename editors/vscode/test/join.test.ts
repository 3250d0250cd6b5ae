import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkTarget, parseTarget } from '../src/join';

test('what is typed names an environment, or nothing', () => {
  const orders = { namespace: 'shop', environment: 'orders-ann-3f9c2a1b' };
  for (const text of ['shop/orders-ann-3f9c2a1b', '  shop/orders-ann-3f9c2a1b\n', 'fairlead join shop/orders-ann-3f9c2a1b']) assert.deepEqual(parseTarget(text), orders, text);
  for (const text of ['', 'orders-ann', 'shop/', '/orders', 'shop/orders/x', 'Shop/orders', 'shop/--kubeconfig', 'shop/or ders', 'shop/$(id)', 'shop/..', `shop/${'x'.repeat(64)}`, 'fairlead run shop/orders']) assert.equal(parseTarget(text), undefined, text);
});

test('a link names an environment, or nothing', () => {
  assert.deepEqual(linkTarget('/join', 'environment=orders-ann-1&namespace=shop'), { namespace: 'shop', environment: 'orders-ann-1' });
  for (const [path, query] of [
    ['/run', 'environment=orders-ann-1&namespace=shop'],
    ['/join', ''],
    ['/join', 'environment=orders-ann-1'],
    ['/join', 'environment=orders-ann-1&namespace=shop&kubeconfig=/tmp/evil'],
    ['/join', 'environment=orders-ann-1&namespace=shop&namespace=other'],
    ['/join', 'environment=a%2Fb&namespace=shop'],
    ['/join', 'environment=orders%0A-x&namespace=shop'],
    ['/join', 'environment=%2e%2e&namespace=shop'],
  ] as const) assert.equal(linkTarget(path, query), undefined, `${path}?${query}`);
});
