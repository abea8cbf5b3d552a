// Attaché ends, well or badly, while an end user is at the provider.

import { assert, callsAs } from './check.mjs';

async function connectsAcross(world, endUser, interrupt) {
  const { attache } = world;
  const person = await world.person();
  const link = await attache.link({ end_user: endUser, providers: ['oidc-basic'] });
  await person.open(link.connect_url);
  await person.choose('oidc-basic');
  await person.signIn('megan');
  await interrupt(attache);
  const callback = await person.heldCallback(() => person.leave(() => person.page.getByRole('button', { name: 'Continue' }).click()));
  assert.equal(await person.open(callback.url), 200);
  await callsAs(attache, 'oidc-basic', endUser, 'megan');
}

export const scenarios = {
  'restart-while-at-the-provider': (world) =>
    connectsAcross(world, 'megan+term@personalemail.com', async (attache) => {
      assert.equal(await attache.process.terminate(), 0, 'the exit code after SIGTERM');
      await attache.start();
    }),

  'kill-while-at-the-provider': (world) =>
    connectsAcross(world, 'megan+kill@personalemail.com', async (attache) => {
      await attache.process.kill();
      await attache.start();
    }),
};
