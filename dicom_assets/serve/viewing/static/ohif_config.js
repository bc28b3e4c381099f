// What OHIF is told of this server. Everything is relative to this file, wherever a proxy has put it.
"use strict";
(() => {
  const here = new URL("./", document.currentScript.src);
  const dicomweb = new URL("../dicom-web", here).href;
  window.PUBLIC_URL = here.pathname;
  window.browserImportFunction = (name) => import(name);
  window.config = {
    routerBasename: here.pathname,
    extensions: [],
    modes: [],
    customizationService: {},
    showStudyList: true,
    maxNumberOfWebWorkers: 2,
    showWarningMessageForCrossOrigin: false,
    showCPUFallbackMessage: true,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    investigationalUseDialog: { option: "always" },
    defaultDataSourceName: "lake",
    dataSources: [
      {
        namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
        sourceName: "lake",
        configuration: {
          friendlyName: "The lake",
          name: "lake",
          qidoRoot: dicomweb,
          wadoRoot: dicomweb,
          wadoUriRoot: dicomweb,
          qidoSupportsIncludeField: true,
          imageRendering: "wadors",
          thumbnailRendering: "wadors",
          enableStudyLazyLoad: true,
          supportsFuzzyMatching: true,
          supportsWildcard: true,
          omitQuotationForMultipartRequest: true,
          bulkDataURI: { enabled: true },
        },
      },
    ],
  };
})();
