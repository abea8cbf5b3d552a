// @googleapis/drive: Drive v3 for Node. It drops a path from `rootUrl`, so that it wants a listener of `listen.origins`.

import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { drive } from '@googleapis/drive';
import { ATTACHE, forEachUser, GONE } from './common.mjs';

// docs: begin
const driveOf = (endUser) => drive({ version: 'v3', rootUrl: `${ATTACHE}/`, headers: { 'X-End-User': endUser } });
// Uploads do not heed the client's `rootUrl`, only the call's: drive.files.create({…, media: {…}}, forUploads)
const forUploads = { rootUrl: `${ATTACHE}/` };
// docs: end

await forEachUser(async (user, login) => {
  const { files } = driveOf(user);
  const names = [];
  for (let pageToken; ; ) {
    const { data } = await files.list({ pageSize: 2, pageToken });
    names.push(...data.files.map((file) => file.name));
    pageToken = data.nextPageToken;
    if (!pageToken) break;
  }
  assert.deepEqual(names, [0, 1, 2, 3, 4].map((n) => `${login}-${n}.jpg`));

  const media = await files.get({ fileId: 'photo-3', alt: 'media' }, { responseType: 'stream' });
  let text = '';
  for await (const chunk of media.data) text += chunk;
  assert.equal(text, `picture 3 of ${login}`);

  assert.equal((await files.create({ requestBody: { name: 'empty' } })).data.size, '0');
  const made = await files.create({ requestBody: { name: 'up.jpg' }, media: { mimeType: 'image/jpeg', body: Readable.from(['one ', 'two']) } }, forUploads);
  assert.equal(made.data.name, 'up.jpg');

  await assert.rejects(files.get({ fileId: 'nothing' }), (error) => error.status === 404 && /File not found: nothing/.test(error.message));
  await assert.rejects(files.get({ fileId: 'busy' }, { retry: false }), (error) => error.status === 429 && /Rate Limit Exceeded/.test(error.message));
  await assert.rejects(driveOf(GONE).files.list({}), (error) => error.status === 401 && /invalid authentication/.test(error.message));
});
