// What both Slack clients do: the one that sends a header, and the one that has only its token.

import assert from 'node:assert/strict';

export async function useSlack(slack, slackOfGone, login) {
  assert.equal((await slack.auth.test()).user, login);
  const names = [];
  for await (const page of slack.paginate('conversations.list', { limit: 2 })) names.push(...page.channels.map((channel) => channel.name));
  assert.deepEqual(names, [0, 1, 2, 3, 4].map((n) => `${login}-${n}`));

  const sent = await slack.chat.postMessage({ channel: 'C1', text: 'Fish & chips: 100 %' });
  assert.deepEqual(sent.message, { text: 'Fish & chips: 100 %', username: login });
  const uploaded = await slack.filesUploadV2({ filename: 'a.txt', file: Buffer.from('hello, slack') });
  assert.equal(uploaded.files[0].files[0].title, `of ${login}`);

  await assert.rejects(slack.chat.postMessage({ channel: 'C404', text: '-' }), (error) => error.code === 'slack_webapi_platform_error' && error.data.error === 'channel_not_found');
  await assert.rejects(slack.users.list(), (error) => error.code === 'slack_webapi_rate_limited_error' && error.retryAfter === 30);
  await assert.rejects(slackOfGone.auth.test(), (error) => error.data.error === 'invalid_auth');
}
