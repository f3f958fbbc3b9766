// A client that its test kills: node kill-child.mjs CREDENTIALS upload FILE | download ID FILE. Prints how far it is.
import { Client } from '../../dist/index.js';

const [credentials, what, first, second] = process.argv.slice(2);
const onProgress = ({ bytesDone }) => console.log(bytesDone);
const client = new Client(JSON.parse(credentials));
if (what === 'upload') await client.fileUpload(first, { onProgress });
else await client.fileDownload(first, { to: second, onProgress });
await client.close();
