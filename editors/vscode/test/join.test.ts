import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkTarget, parseTarget } from '../src/join';

test('what is typed names an environment, or nothing', () => {
  const orders = { namespace: 'shop', environment: 'orders-ann-3f9c2a1b' };
  for (const text of ['shop/orders-ann-3f9c2a1b', '  shop/orders-ann-3f9c2a1b\n', 'fairlead join shop/orders-ann-3f9c2a1b']) assert.deepEqual(parseTarget(text), orders, text);
  assert.deepEqual(parseTarget('fairlead join shop/orders-ann-3f9c2a1b --context arn:aws:eks:eu-1:1:cluster/x'), { ...orders, context: 'arn:aws:eks:eu-1:1:cluster/x' });
  for (const text of ['shop/orders --context', 'shop/orders --kubeconfig x', '', 'orders-ann', 'shop/', '/orders', 'shop/orders/x', 'Shop/orders', 'shop/--kubeconfig', 'shop/or ders', 'shop/$(id)', 'shop/..', `shop/${'x'.repeat(64)}`, 'fairlead run shop/orders']) assert.equal(parseTarget(text), undefined, text);
});

test('a link names an environment, or nothing', () => {
  const at = 'cluster=https%3A%2F%2F10.0.0.1%3A6443';
  assert.deepEqual(linkTarget('/join', `${at}&environment=orders-ann-1&namespace=shop`), { namespace: 'shop', environment: 'orders-ann-1', cluster: 'https://10.0.0.1:6443' });
  for (const [path, query] of [
    ['/run', `${at}&environment=orders-ann-1&namespace=shop`],
    ['/join', ''],
    ['/join', 'environment=orders-ann-1&namespace=shop'],
    ['/join', `${at}&environment=orders-ann-1`],
    ['/join', `${at}&environment=orders-ann-1&namespace=shop&kubeconfig=/tmp/evil`],
    ['/join', `${at}&environment=orders-ann-1&namespace=shop&namespace=other`],
    ['/join', `${at}&environment=a%2Fb&namespace=shop`],
    ['/join', `${at}&environment=orders%0A-x&namespace=shop`],
    ['/join', `${at}&environment=%2e%2e&namespace=shop`],
    ['/join', 'cluster=javascript:alert(1)&environment=orders-ann-1&namespace=shop'],
    ['/join', 'cluster=https%3A%2F%2Fu%3Ap%40host&environment=orders-ann-1&namespace=shop'],
    ['/join', 'cluster=https%3A%2F%2Fhost%0A&environment=orders-ann-1&namespace=shop'],
  ] as const) assert.equal(linkTarget(path, query), undefined, `${path}?${query}`);
});
