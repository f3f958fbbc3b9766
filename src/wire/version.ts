/** Version of the package, as the server tells it and `--version` prints it; a test holds it to package.json. */
export const VERSION = '0.1.0';
